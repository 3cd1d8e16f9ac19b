// Package server gives the artifacts out.
package server

import (
	"context"
	"net/http"

	"github.com/fluxcd/pkg/artifact/config"
)

// Start serves the store's files until the context is done.
func Start(ctx context.Context, options *config.Options) error {
	server := &http.Server{
		Addr:    options.StorageAddress,
		Handler: http.FileServer(http.Dir(options.StoragePath)),
	}
	go func() {
		<-ctx.Done()
		_ = server.Close()
	}()
	if err := server.ListenAndServe(); ctx.Err() == nil {
		return err
	}
	return nil
}
