// Package config has the flags of the artifact store.
package config

import "github.com/spf13/pflag"

// Options are the flags.
type Options struct {
	ArtifactDigestAlgo string
	StoragePath        string
	StorageAddress     string
	StorageAdvAddress  string
}

// BindFlags adds the flags, with the defaults that source-controller's documentation gives.
func (o *Options) BindFlags(flags *pflag.FlagSet) {
	flags.StringVar(&o.ArtifactDigestAlgo, "artifact-digest-algo", "sha256", "The digest algorithm.")
	flags.StringVar(&o.StoragePath, "storage-path", "", "The local storage path.")
	flags.StringVar(&o.StorageAddress, "storage-addr", ":9090", "The address to serve from.")
	flags.StringVar(&o.StorageAdvAddress, "storage-adv-addr", "", "The advertised address.")
}
