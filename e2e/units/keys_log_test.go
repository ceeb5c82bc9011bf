//go:build e2e && linux

package units

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/core-tools/hsu-master/e2e/harness"
)

// rotated returns the rotated files of a worker's log.
func (s *site) rotated(worker string) []string {
	paths, _ := filepath.Glob(filepath.Join(s.State, "logs", worker+".log.[0-9]*"))
	return paths
}

func TestKeysOfALog(t *testing.T) {
	t.Parallel()
	s := newSite(t, map[string]string{
		"loud": "#!/bin/sh\nwhile :; do head -c 1000 /dev/zero | tr '\\0' x; echo; done\n",
		"hsu.yaml": `
defaults: {kind: managed, command: [./loud], start: {settle: 20ms}}
units:
  few:
    log: {max_size: 8KiB, keep: 2, compress: false}
  none:
    log: {max_size: 8KiB, keep: 0}
  packed:
    log: {max_size: 8KiB, keep: 3, compress: true}
  young:
    log: {max_size: 8KiB, keep: 1000, max_age: 2s, compress: false}
`,
	})
	m := s.start()
	s.awaitUp(4)
	await := func(worker, what string, pass func(paths []string) bool) {
		t.Helper()
		harness.WaitFor(t, worker+" "+what, func() error {
			if paths := s.rotated(worker); !pass(paths) {
				return fmt.Errorf("its rotated files are %v", paths)
			}
			return nil
		})
	}
	// highest returns the number of the newest rotated file.
	highest := func(paths []string) (n int) {
		for _, path := range paths {
			var number int
			_, name, _ := strings.Cut(filepath.Base(path), ".log.")
			if _, err := fmt.Sscanf(name, "%d", &number); err == nil {
				n = max(n, number)
			}
		}
		return n
	}
	plain := func(path string) bool { return !strings.HasSuffix(path, ".gz") }
	await("few-0", "keeps two", func(paths []string) bool { return highest(paths) > 5 && len(paths) == 2 })
	await("packed-0", "keeps three, compressed", func(paths []string) bool {
		return highest(paths) > 5 && len(paths) == 3 && !slices.ContainsFunc(paths, plain)
	})
	await("young-0", "loses the old ones", func(paths []string) bool {
		return len(paths) > 0 && !slices.ContainsFunc(paths, func(path string) bool {
			return strings.HasSuffix(path, ".log.1")
		})
	})
	for _, path := range s.rotated("few-0") {
		if !plain(path) {
			t.Errorf("%s is compressed", path)
		}
	}
	for _, path := range s.rotated("young-0") {
		info, err := os.Stat(path)
		if err == nil && time.Since(info.ModTime()) > harness.Patience {
			t.Errorf("%s is of %s", path, info.ModTime())
		}
	}
	if paths := s.rotated("none-0"); len(paths) > 0 {
		t.Errorf("with keep: 0 there are %v", paths)
	}
	m.Stop()
	s.WantNothingLeft()
}
