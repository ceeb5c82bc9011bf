package executable

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/core-tools/hsu-master/internal/safefile"
)

func write(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestInterpreters(t *testing.T) {
	outer := write(t, "outer", []byte("#!/bin/sh\n"))
	for content, want := range map[string][]string{
		"#!" + outer + " -x\n": {outer, "/bin/sh"},
		"#!/bin/sh":            {"/bin/sh"},
		"#!":                   nil,
		"#! \n":                nil,
		"":                     nil,
		"\x7fELF":              nil,
		"echo":                 nil,
	} {
		path := write(t, "w", []byte(content))
		parts, err := interpreters(path)
		var got []string
		for _, p := range parts {
			got = append(got, p.path)
		}
		// The further parts are those of this machine's shell.
		if want = append([]string{path}, want...); err != nil || len(got) < len(want) ||
			strings.Join(got[:len(want)], " ") != strings.Join(want, " ") {
			t.Errorf("interpreters of %q = %q, %v, want %q first", content, got, err, want)
		}
	}
	loop := filepath.Join(t.TempDir(), "loop")
	if err := os.WriteFile(loop, []byte("#!"+loop+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if parts, err := interpreters(loop); err != nil || len(parts) != maxInterpreters {
		t.Errorf("a script that interprets itself: %d parts, %v", len(parts), err)
	}
}

func TestInterpreterOfAnotherIsRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	interpreter := write(t, "sh", []byte("#!/bin/sh\n"))
	path := write(t, "w", []byte("#!"+interpreter+"\n"))
	if _, err := Check(path, 0); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(interpreter, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	_, err := Check(path, 0)
	if e, ok := errors.AsType[*safefile.ReplaceableError](err); !ok || e.Path != interpreter {
		t.Errorf("%v, want %s refused", err, interpreter)
	}
}
