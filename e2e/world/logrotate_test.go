//go:build e2e && linux

package world

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/core-tools/hsu-master/e2e/harness"
)

// logrotateSnippets returns the configurations in README and the man page.
func logrotateSnippets(t *testing.T) (readme, manual string) {
	t.Helper()
	between := func(path, section, begin, end string) string {
		text, err := os.ReadFile(filepath.Join(harness.Repository, path))
		if err != nil {
			t.Fatal(err)
		}
		_, rest, found := strings.Cut(string(text), section)
		_, rest, begins := strings.Cut(rest, begin)
		snippet, _, ends := strings.Cut(rest, end)
		if !found || !begins || !ends {
			t.Fatalf("%s has no configuration of logrotate", path)
		}
		return snippet
	}
	readme = between("README.md", "## Rotate the workers' output\n", "```\n", "```\n")
	manual = between("docs/hsu-master.1", ".SH LOG ROTATION\n", ".nf\n", ".fi\n")
	return readme, manual
}

func TestOutputOfAWorkerIsRotatedAsDocumented(t *testing.T) {
	t.Parallel()
	harness.NeedDebian(t, "logrotate", "logrotate", "--version")
	readme, manual := logrotateSnippets(t)
	if diff := cmp.Diff(strings.Fields(readme), strings.Fields(manual)); diff != "" {
		t.Errorf("README and the man page differ (-README +manual):\n%s", diff)
	}

	h := harness.NewHost(t)
	h.Flags = h.Units("talker")
	m := h.Start()
	before := h.AwaitRunning(1)
	log := filepath.Join(h.State, "logs", "worker-0.log")
	atLeast := func(size int64) func() error {
		return func() error {
			info, err := os.Stat(log)
			if err == nil && info.Size() < size {
				err = fmt.Errorf("the log has %d bytes", info.Size())
			}
			return err
		}
	}
	harness.WaitFor(t, "the worker has written much", atLeast(20_000))
	config := filepath.Join(h.Dir, "logrotate.conf")
	here := strings.ReplaceAll(readme, "/var/lib/hsu-master/", h.State+"/")
	if err := os.WriteFile(config, []byte(here), 0o600); err != nil {
		t.Fatal(err)
	}
	output, err := harness.Output(t, "logrotate", "--force", "--state", filepath.Join(h.Dir, "logrotate.state"), config)
	if err != nil {
		t.Fatalf("logrotate: %v\n%s", err, output)
	}
	harness.WaitFor(t, "the worker writes on", atLeast(1000))

	old, last := wantLines(t, log+".1.gz", readGzip(t, log+".1.gz")), 0
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	// The first line may be cut. A descriptor without O_APPEND would have left a hole.
	if _, whole, found := bytes.Cut(text, []byte("\n")); found {
		last = wantLines(t, log, whole)
	}
	if old == 0 || last <= old {
		t.Errorf("the last line is %d in the rotated log and %d in the new one, want it to go on", old, last)
	}
	h.AwaitRunning(1).WantInstances(t, before.Instances())
	m.Stop()
	h.WantNothingLeft()
}

// wantLines checks that a log holds consecutive lines of a talker, and returns the number of the last whole one.
func wantLines(t *testing.T, name string, text []byte) (last int) {
	t.Helper()
	if bytes.IndexByte(text, 0) >= 0 {
		t.Errorf("%s has a hole", name)
	}
	for line := range strings.Lines(string(text)) {
		var n int
		if !strings.HasSuffix(line, "\n") || line == "serving\n" {
			continue
		}
		if _, err := fmt.Sscanf(line, "line %d\n", &n); err != nil || last != 0 && n != last+1 {
			t.Errorf("%s has the line %q after line %d", name, line, last)
		}
		last = n
	}
	return last
}

func readGzip(t *testing.T, path string) []byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	unzip, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(unzip)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
