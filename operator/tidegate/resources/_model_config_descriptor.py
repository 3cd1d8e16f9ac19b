"""Triton's descriptor of model_config.proto, as tritonclient 2.73 carries it: data, not code.

A serialised FileDescriptorProto, compressed with zlib, in base85. A test holds it equal to the
installed tritonclient's and prints the new text when it is not. Its licence:
"""

# Copyright (c) 2020, NVIDIA CORPORATION. All rights reserved.
#
# Redistribution and use in source and binary forms, with or without
# modification, are permitted provided that the following conditions
# are met:
#  * Redistributions of source code must retain the above copyright
#    notice, this list of conditions and the following disclaimer.
#  * Redistributions in binary form must reproduce the above copyright
#    notice, this list of conditions and the following disclaimer in the
#    documentation and/or other materials provided with the distribution.
#  * Neither the name of NVIDIA CORPORATION nor the names of its
#    contributors may be used to endorse or promote products derived
#    from this software without specific prior written permission.
#
# THIS SOFTWARE IS PROVIDED BY THE COPYRIGHT HOLDERS ``AS IS'' AND ANY
# EXPRESS OR IMPLIED WARRANTIES, INCLUDING, BUT NOT LIMITED TO, THE
# IMPLIED WARRANTIES OF MERCHANTABILITY AND FITNESS FOR A PARTICULAR
# PURPOSE ARE DISCLAIMED.  IN NO EVENT SHALL THE COPYRIGHT OWNER OR
# CONTRIBUTORS BE LIABLE FOR ANY DIRECT, INDIRECT, INCIDENTAL, SPECIAL,
# EXEMPLARY, OR CONSEQUENTIAL DAMAGES (INCLUDING, BUT NOT LIMITED TO,
# PROCUREMENT OF SUBSTITUTE GOODS OR SERVICES; LOSS OF USE, DATA, OR
# PROFITS; OR BUSINESS INTERRUPTION) HOWEVER CAUSED AND ON ANY THEORY
# OF LIABILITY, WHETHER IN CONTRACT, STRICT LIABILITY, OR TORT
# (INCLUDING NEGLIGENCE OR OTHERWISE) ARISING IN ANY WAY OUT OF THE USE
# OF THIS SOFTWARE, EVEN IF ADVISED OF THE POSSIBILITY OF SUCH DAMAGE.

from typing import Final

DESCRIPTOR: Final = (
    "c-p-hO>Z05QT&p~p-54yFM93RF5|e06Em?Ae<W#uQY2+DmPm!7tfZI4ihQCLUUJ#pr5)uD6zHWv(T_uW>>nt4Df%CJ%B"
    "kp~Ko33kl3RfSoj30-wY#K5*)e(&_q~~U^X7Zz36!4IVW!r$`o~7MIIu0(Qc_0$nAxn~W`*BGAh*jQn!3w&jGo~#TX_g"
    "6n>p6dZZjtzxfxqeZ`>-5aEf90Vp9SuIY<s{!?F$cG#|YgS<k2sAvxNehj?G_F{Bt-PbpcL?V8q+ZW3ft$v~oQ4f}3B#"
    "t{oYi-ST3)%uRB<FSuzYd8qecpu`=jD9B{$FJ;0A<Sa{wfF=f&racoCX{<HZ{tNYQ`{s!i>v94s~23BbI=_O9b_|x1h!"
    "$(VJO^=Zl7u$_T1niOOnX$Ud+zEhgKmhWdY_;JI98}@(ILG(Sq(c#&edRBMB`*`owZvZD5&3`!t{8B2a%HfrT)sh7?PL"
    "#8P@GKEmH5wM9sYyJ<#;Bo`~Z1xu44vj9(O^@>)1TG=V(W(p;UOSz|Ly>!rO<YrKaN&0-ecaV#WzRLI&9g)~=RH{3<Sm"
    "8}+2rbrkEE}!qL?1A&Ncutc87q7n1(25;4Be2K+(!0wSJ&KAgpZO?mV82~;9d*2ly_nF*s^=Nu)*xcwQ<QI@!}T2@H09"
    "_&q3ou29zSq*@87xA2*^m!pK4X*I>bLH2ST%v_r<1R8&xO)3jb_w%+Zsj&`KG?GtGM=wH^rHLN~*O_Ek_z#5Y2TYWU)K"
    "GSVYTtG7{vX5lp6PT6!E<k##(cCSyw0fgnMJ4zawhzmw2j4<@`!E+Rd>er@@!lA^uP#<kP_b7M)GB06{Rl%CcMUo{PN$"
    "zMzzak|QY`!pZDo^7RoKdUz*|%wH)lX1c%TEiy4_{2MtnrcO#@PhoiBxDm=|$SGdM*un^fVi5$Panu(VlfmAAF(PIb3h"
    "Z)xSmLA`}qdJ}GljZ(RMuzRpmYE>&Cponr8-kt)a9oAag+E1#@2D;cSxGBJQOJ9V*O8eUWc4@Dgiy_B30aa^Ncjanaxd"
    "!?0s<wp(wyO19qVNl}7!sSbn2^XKB(k@q#D&dV4NF|03XzAU79*+MkwPoLb-~MinKRH7m#o$I4qB4mnZh?w89$yf+d<d"
    "aqv)wTfLRlxy5o}GCnUH4cyWhdw`VZr#Lzv7_4LLME=DSuCSrUHNoT;?#<9^R`$%uxz8Gy^LT}Hg*I`zi%mvXO_O#~$("
    "jl%hY64<-h<Xi@9ukicJ|OhC%>~Gal%cgxEDY3z|7KuKxHSfop7FKrp2_7QB)YafIFVvm53@RsQhdzemCaD@&u+Yb30z"
    "v=lX%K~h_{CwU5e?4m%uM0xbg+8vaeWs$k#Q!-DW1ktZvy3g^KjXqe~E~dIU;7e5DCXWOv%Y==U)g_gK%ePi5e`e+jaC"
    "gttp*o5N!SSN37qA`1@@o&7#UZ^QMj?w&APd&cZOM$02w*W42xY%Q}xu`k1;Dbu^SL21S4cSRmiS0N$Ph<Vjy&zVX3Pp"
    "E%MK%8XE%QX%lEHA0#A$K%%PPG@h;cAG`cO6;CRRIW6<5o`&o8Gv0NmUA4;<n85pcGTv8k}m5Ycst^3Qekih(qcOQURd"
    "bXpZr<$W0052_!_oh|>8#dg=3v6!)ur*FIGaVNu)&(=rzw7LXljqpv`ChZEW4G}L8C>{F6ULkv@-@K^O85r8wGiPw7?y"
    "x!yQ!-emrDg*G{8@YPMPGz>=g2Z#(95NaD9=`mMbk&cek0SrCWBw3>mC1hHg)3OZYZIe}?071#8Z?T&4}MVl+=HU8?;!"
    "Qhn0WmM2TQdRfPrq~H+C?NJh$~a&MoeZ$O;R(2MeL4pnfxc{iaAww?LT?(J<g(xp!oWD<lgw$OMxGmM447TBBKOeW_Kd"
    "Tcv{?UM}Teezc0!4c111m0BIk+P`~E@8?4{WHRxUAdA;$7;{iZ{K~Q*d^;>AA5yU;FiM1gW!1F~JJyG$t9hh)M%%VThb"
    "ZD>T)7UbqQLiHEX>!o(Gk^Sl85M?{+0GqevI(>ICaFgArm|fV76KPtXk&RPC){@rP7zVNa1%eSSCg*r)U92ds9YwtlX9"
    "dHp9EvUR&XX6yC`q^Jm8*wthN^`75x9G#q9>XPRYqn9Wm&;2R5auK>^}g^2V^7xu&w1fV<`S3ZJeZ(p1)8{Bi6alg_IV"
    "P!-zfICMfK9=}HA}M;t<fAFf_z?2v?fLCFuG|U6tBbhh#$Nb0zzS{bGh`USM(QcSY{#%!+m)&1y)daTMseTe!;9`|h0w"
    "6nL=u?lc~KjGNfHf0LlRg>a5HcuAU6Ca3mSsBcLg%|>Drd5`7_bosV9~Nmgv3iV;Aot12poOP#90(7omA=z-KWSsn85P"
    "Rz>@#{xJ%3@(ksZKx=nt-bCwx6^_w&KiJTYb<@Ef(;kYJFTpMSco5v+WlofD99bw4-v+-}GT0=>&utP5L)qA<uv%`^Tg"
    "}FfwqO1Hpjt0iwf$D9$z6TYUb9-NpzkBk%VT@hdIej)tFSh<Q*JbywMs6A);=FlOE7tS1anf=QpxL=6{Py}2+Y^|hHL1"
    "i&|E+ek?AvoD9sF(AoVq~Esdj!XoHrzBuUZ8jAjDcGb7G<WJzt#1CV(UqWWC~%PrypL#HU~eYeC;Ro0ubxsSX=b03@qp"
    ">G)C(wg78r`umZRO@hah*snvH(oV=Y}vxwG{LHzcwB`g4%xM>7d&Bl4Fyd*)Gr_#j1yBMy>RfGkniCwdf0S2rsZl_2AH"
    "xqAmK#SZz5-;Mf~8i7f!mZ_d7<13*K{1M;5N<<)G-La!~C297K)5<{~UOk|VF#{dEi$NZQrD!+J+154Cq8?zn6qE4>?G"
    "y_`W}ykP_74Oro9A(Ux!Ph8FBmvUsolTrT^g*d^XS&3=8&#YD;Bi3Y7F2<+Ik0B)#+0zHIN4h(O4N<4>>I0F5HUXr)au"
    "RVOQJh9Xj8;Z8FkYQ8><sj_bR6|P$OKQDR>Qpy*%0k17+B6^MLp+Li!|$TxiU2YOQ?KWCuWd`y4@Rl0SGonqz`2SW=Xb"
    "=6ztf$fS@GgDQncxy8zW%>TfYrh*0<%1J(+pZFCH)Czj)K`3fuuQ#gxe2@%b>Is3La3+fX{`}qz?`JG@ba_ypflMaf~H"
    "5vm-rdHqKvBVl^rg3ER7md-(l?Hc(cVJaaXz?D7sFGzNMlS>?!GXy-vS9yLL{>UYHn1E6n}yR-m(L0K>`kX%(gDZPei)"
    "-jf7D;0R_IsA2tJ$8-8{G)&DYSs6mH1@V-sBnMaar}`-F}4FaM0fJb~>pH1f8ie2R5G{nWhdDx~pNm~)9x6o0+c`pYOb"
    "ME(`!b6AuFv6<+*#<9U{ImUZ%DVp-DHo{i+Ve!OpT&s%`(Zth(BdzO_B)2{EhQQvQQ4838g%3h$9b;u~N-?W%LN1KSAH"
    "<G^?PpBdO=L4SlAvU*@EyotQKt9Kke%@7NmF<Edw|UEoTQE<u|{0<7HkXy*k|Rh(87Jl%E;}t7O}~%7QykdY~p;eDNgz"
    "CmN&Q&CBe$X7bXlkv!evh!B)pwbunGP18H%Bpt(Fo)A!8rF3by9NqJ?AvVU&>2<9!{I3Pbymo7{n8DPzw>xeGvY{r-->"
    ">E?MF^q+u^5<09d5o|#gne^b^@Qjj!4eZ04=WFJ!p@MVzWf3aP|r_}h>ChP<hv*@q=p08LcVd~>#4uD6`6DtF_UCI+n}"
    "`Dp)Dt$BGT`MNeiPbmfQ5T<$;SR^a-S;vAcTL$;0HxDM<+bY9XLN{x}dJvlrrq!yg)s;Qs}sk9=;jNy_y6A>;(KHOeV@"
    "WwQKzS*MJ}CSkc}nZ@(BrO8h%<2k5=#U~N5N1<Mmd1h_035{hYv;td3aV%odg7W#v-X4tgMX$&c8glX~VXd7LBGremGF"
    "i#f$}G%IVbxAU*_o2i)`LaEl`zjEWKL~!2_1CgShB>v^PdPLM}<%h=38IxRkd3EX=w+$%NhRmPb-^^#t!zVSpfPxsMTA"
    "KurpnN^yvHEgIp}I@WDnd9$0wrVJ<PENEBvA6a|4f|2N_%{ojb58li9PAvpLx5jySrMBw?+;rp#-t^PQdIlImlVrP$L>"
    "3?cI_#Y-5wF&"
)
