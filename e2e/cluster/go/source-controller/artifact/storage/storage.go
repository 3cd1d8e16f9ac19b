// Package storage keeps artifacts of git repositories in a folder.
package storage

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/artifact/config"
	intdigest "github.com/fluxcd/pkg/artifact/digest"
	"github.com/fluxcd/pkg/sourceignore"
	"github.com/fluxcd/pkg/sourceignore/gitignore"
)

var errNotGit = errors.New("this store is for git repositories only")

// ArchiveFileFilter is true of what stays out of an archive.
type ArchiveFileFilter func(path string, info os.FileInfo) bool

// SourceIgnoreFilter leaves out what patterns in gitignore's form name.
func SourceIgnoreFilter(patterns []gitignore.Pattern, domain []string) ArchiveFileFilter {
	matcher := sourceignore.NewDefaultMatcher(patterns, domain)
	return func(name string, info os.FileInfo) bool {
		return matcher.Match(strings.Split(name, string(filepath.Separator)), info.IsDir())
	}
}

// Storage is a folder, and the host it is served by.
type Storage struct {
	BasePath string
	Hostname string

	lock sync.Mutex
}

// New makes a store of an existing folder.
func New(options *config.Options) (*Storage, error) {
	info, err := os.Stat(options.StoragePath)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("%s is no folder", options.StoragePath)
	}
	return &Storage{BasePath: options.StoragePath, Hostname: options.StorageAdvAddress}, nil
}

// NewArtifactFor names an artifact that may not be there yet.
func (s *Storage) NewArtifactFor(
	kind string, owner metav1.Object, revision, file string,
) meta.Artifact {
	folder := path.Join(strings.ToLower(kind), owner.GetNamespace(), owner.GetName())
	found := meta.Artifact{Path: path.Join(folder, file), Revision: revision}
	s.SetArtifactURL(&found)
	return found
}

// SetArtifactURL makes the URL that of this host.
func (s *Storage) SetArtifactURL(artifact *meta.Artifact) {
	if artifact.Path != "" {
		artifact.URL = fmt.Sprintf("http://%s/%s", s.Hostname, artifact.Path)
	}
}

// SetHostname returns the URL with this host; what is no URL is returned as it is.
func (s *Storage) SetHostname(address string) string {
	parsed, err := url.Parse(address)
	if err != nil || address == "" {
		return address
	}
	parsed.Host = s.Hostname
	return parsed.String()
}

// LocalPath is where an artifact lies; empty for none, or one that is not below the folder.
func (s *Storage) LocalPath(artifact meta.Artifact) string {
	if artifact.Path == "" || !filepath.IsLocal(artifact.Path) {
		return ""
	}
	return filepath.Join(s.BasePath, artifact.Path)
}

// MkdirAll makes the artifact's folder.
func (s *Storage) MkdirAll(artifact meta.Artifact) error {
	return os.MkdirAll(filepath.Dir(s.LocalPath(artifact)), 0o750)
}

// Remove removes the artifact.
func (s *Storage) Remove(artifact meta.Artifact) error { return os.Remove(s.LocalPath(artifact)) }

// RemoveAll removes the folder of the artifact, and says which it was; empty: there was none.
func (s *Storage) RemoveAll(artifact meta.Artifact) (string, error) {
	folder := filepath.Dir(s.LocalPath(artifact))
	if _, err := os.Stat(folder); err != nil {
		return "", nil
	}
	return folder, os.RemoveAll(folder)
}

// GarbageCollect removes all artifacts beside this one.
func (s *Storage) GarbageCollect(
	_ context.Context, artifact meta.Artifact, _ time.Duration,
) ([]string, error) {
	keep := s.LocalPath(artifact)
	others, err := filepath.Glob(filepath.Join(filepath.Dir(keep), "*.tar.gz"))
	if err != nil {
		return nil, err
	}
	var gone []string
	for _, other := range others {
		if info, err := os.Lstat(other); err != nil || other == keep || !info.Mode().IsRegular() {
			continue
		}
		if err := os.Remove(other); err != nil {
			return gone, err
		}
		gone = append(gone, other)
	}
	return gone, nil
}

// ArtifactExist tells whether it is there, as a regular file.
func (s *Storage) ArtifactExist(artifact meta.Artifact) bool {
	info, err := os.Lstat(s.LocalPath(artifact))
	return err == nil && info.Mode().IsRegular()
}

// VerifyArtifact compares the file with its digest.
func (s *Storage) VerifyArtifact(artifact meta.Artifact) error {
	want, err := digest.Parse(artifact.Digest)
	if err != nil {
		return err
	}
	file, err := os.Open(s.LocalPath(artifact))
	if err != nil {
		return err
	}
	defer file.Close()
	got, err := want.Algorithm().FromReader(file)
	if err == nil && got != want {
		err = fmt.Errorf("%s has digest %s, not %s", artifact.Path, got, want)
	}
	return err
}

// Archive packs a folder, without what the filter leaves out, and completes the artifact by it.
// The archive has the same bytes for the same files: no times, no owners.
func (s *Storage) Archive(artifact *meta.Artifact, folder string, out ArchiveFileFilter) (err error) {
	target := s.LocalPath(*artifact)
	file, err := os.CreateTemp(filepath.Dir(target), ".packing-*")
	if err != nil {
		return err
	}
	defer func() {
		_ = file.Close()
		if err != nil {
			_ = os.Remove(file.Name())
		}
	}()
	digester := intdigest.Canonical.Digester()
	packed := gzip.NewWriter(io.MultiWriter(file, digester.Hash()))
	archive := tar.NewWriter(packed)
	if err := filepath.Walk(folder, func(at string, info fs.FileInfo, err error) error {
		if err != nil || !info.Mode().IsRegular() || (out != nil && out(at, info)) {
			return err
		}
		return add(archive, folder, at, info)
	}); err != nil {
		return err
	}
	if err := errors.Join(archive.Close(), packed.Close(), file.Sync()); err != nil {
		return err
	}
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if err := os.Rename(file.Name(), target); err != nil {
		return err
	}
	size := info.Size()
	artifact.Digest, artifact.Size = digester.Digest().String(), &size
	artifact.LastUpdateTime = metav1.Now()
	return nil
}

func add(archive *tar.Writer, folder, at string, info fs.FileInfo) error {
	name, err := filepath.Rel(folder, at)
	if err != nil {
		return err
	}
	header := &tar.Header{
		Name: filepath.ToSlash(name), Mode: int64(info.Mode().Perm()), Size: info.Size(),
	}
	if err := archive.WriteHeader(header); err != nil {
		return err
	}
	file, err := os.Open(at)
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = io.Copy(archive, file)
	return err
}

// Symlink lets another name beside the artifact lead to it, and returns that one's URL.
func (s *Storage) Symlink(artifact meta.Artifact, name string) (string, error) {
	target := s.LocalPath(artifact)
	link := filepath.Join(filepath.Dir(target), name)
	if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if err := os.Symlink(filepath.Base(target), link); err != nil {
		return "", err
	}
	return fmt.Sprintf("http://%s/%s", s.Hostname, path.Join(path.Dir(artifact.Path), name)), nil
}

// Lock holds the store: one artifact at a time is written.
func (s *Storage) Lock(meta.Artifact) (func(), error) {
	s.lock.Lock()
	return s.lock.Unlock, nil
}

// Copy is for kinds of sources that are not git.
func (s *Storage) Copy(*meta.Artifact, io.Reader) error { return errNotGit }

// CopyFromPath is for kinds of sources that are not git.
func (s *Storage) CopyFromPath(*meta.Artifact, string) error { return errNotGit }

// CopyToPath is for repositories that include others.
func (s *Storage) CopyToPath(*meta.Artifact, string, string) error { return errNotGit }
