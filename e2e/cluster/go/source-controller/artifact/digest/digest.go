// Package digest names the algorithm of artifacts' digests.
package digest

import (
	_ "crypto/sha256" // makes the algorithm available

	"github.com/opencontainers/go-digest"
)

// Canonical is the algorithm in use.
var Canonical = digest.SHA256

// AlgorithmForName returns the algorithm if there is one of that name.
func AlgorithmForName(name string) (digest.Algorithm, error) {
	found := digest.Algorithm(name)
	if !found.Available() {
		return "", digest.ErrDigestUnsupported
	}
	return found, nil
}
