// Says what kstatus, the library by which Flux, `kubectl kustomize`-based tools and Helm's `--wait`
// judge any object, makes of objects.
//
// Usage: kstatus < objects > answers; one JSON document a line, in and out.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 4<<20)
	out := json.NewEncoder(os.Stdout)
	for lines.Scan() {
		object := &unstructured.Unstructured{}
		if err := object.UnmarshalJSON(lines.Bytes()); err != nil {
			fail(err)
		}
		found, err := status.Compute(object)
		if err != nil {
			fail(err)
		}
		answer := map[string]string{"status": string(found.Status), "message": found.Message}
		if err := out.Encode(answer); err != nil {
			fail(err)
		}
	}
	if err := lines.Err(); err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "error:", err)
	os.Exit(1)
}
