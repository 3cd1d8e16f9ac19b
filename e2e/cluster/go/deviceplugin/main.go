// A device plugin that hands out GPUs that do not exist, through the kubelet's real API.
//
// Usage: deviceplugin -resource nvidia.com/gpu -count 4 -dir /var/lib/kubelet/device-plugins
//
// A pod that gets devices sees their ids as NVIDIA_VISIBLE_DEVICES, as the vendor's plugin does it.
// Ids listed one a line in the file -unhealthy are reported unhealthy; the file is read each second,
// so a test can break a GPU and mend it.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	api "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

type plugin struct {
	api.UnimplementedDevicePluginServer
	ids       []string
	unhealthy string
}

func (p *plugin) devices() []*api.Device {
	sick := map[string]bool{}
	if text, err := os.ReadFile(p.unhealthy); err == nil {
		for _, line := range strings.Fields(string(text)) {
			sick[line] = true
		}
	}
	devices := make([]*api.Device, 0, len(p.ids))
	for _, id := range p.ids {
		health := api.Healthy
		if sick[id] {
			health = api.Unhealthy
		}
		devices = append(devices, &api.Device{ID: id, Health: health})
	}
	return devices
}

func (p *plugin) GetDevicePluginOptions(context.Context, *api.Empty) (*api.DevicePluginOptions, error) {
	return &api.DevicePluginOptions{}, nil
}

func (p *plugin) ListAndWatch(_ *api.Empty, stream grpc.ServerStreamingServer[api.ListAndWatchResponse]) error {
	last := ""
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		devices := p.devices()
		if now := fmt.Sprint(devices); now != last {
			if err := stream.Send(&api.ListAndWatchResponse{Devices: devices}); err != nil {
				return err
			}
			last = now
		}
		select {
		case <-stream.Context().Done():
			return nil
		case <-ticker.C:
		}
	}
}

func (p *plugin) Allocate(_ context.Context, request *api.AllocateRequest) (*api.AllocateResponse, error) {
	answer := &api.AllocateResponse{}
	for _, container := range request.ContainerRequests {
		answer.ContainerResponses = append(answer.ContainerResponses, &api.ContainerAllocateResponse{
			Envs: map[string]string{"NVIDIA_VISIBLE_DEVICES": strings.Join(container.DevicesIds, ",")},
		})
	}
	return answer, nil
}

// register tells the kubelet where the plugin listens; the kubelet then calls ListAndWatch.
func register(dir, endpoint, resource string) error {
	connection, err := grpc.NewClient("unix://"+filepath.Join(dir, "kubelet.sock"),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_, err = api.NewRegistrationClient(connection).Register(ctx, &api.RegisterRequest{
		Version: api.Version, Endpoint: endpoint, ResourceName: resource, Options: &api.DevicePluginOptions{},
	})
	return err
}

// identity distinguishes one kubelet's socket from the next one's: a restarted kubelet removes all
// sockets of the folder and forgets its plugins, which must then serve and register anew.
func identity(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return ""
	}
	return fmt.Sprint(info.Sys().(*syscall.Stat_t).Ino, info.ModTime().UnixNano())
}

func main() {
	resource := flag.String("resource", "nvidia.com/gpu", "extended resource to offer")
	count := flag.Int("count", 4, "number of devices")
	dir := flag.String("dir", api.DevicePluginPath, "the kubelet's device-plugin folder")
	prefix := flag.String("prefix", "GPU-tidegate-", "beginning of each device id")
	unhealthy := flag.String("unhealthy", "", "file with ids that are broken, one a line")
	flag.Parse()

	p := &plugin{unhealthy: *unhealthy}
	for i := range *count {
		p.ids = append(p.ids, fmt.Sprintf("%s%d", *prefix, i))
	}
	endpoint := "tidegate-" + strings.NewReplacer("/", "-", ".", "-").Replace(*resource) + ".sock"
	socket := filepath.Join(*dir, endpoint)
	kubelet := filepath.Join(*dir, "kubelet.sock")

	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	var server *grpc.Server
	registered := ""
	for {
		if now := identity(kubelet); now != "" && now != registered {
			if server != nil {
				server.Stop()
			}
			_ = os.Remove(socket)
			listener, err := net.Listen("unix", socket)
			if err != nil {
				log.Fatal(err)
			}
			server = grpc.NewServer()
			api.RegisterDevicePluginServer(server, p)
			go func(s *grpc.Server) { _ = s.Serve(listener) }(server)
			if err := register(*dir, endpoint, *resource); err != nil {
				log.Printf("register %s: %v", *resource, err)
			} else {
				log.Printf("registered %d x %s", *count, *resource)
				registered = now
			}
		}
		select {
		case <-stop:
			if server != nil {
				server.Stop()
			}
			_ = os.Remove(socket)
			return
		case <-time.After(250 * time.Millisecond):
		}
	}
}
