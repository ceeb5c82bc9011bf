package importer

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/core-tools/hsu-master/config"
)

// A small file that stands for a huge one is refused, or its parts are left out, within the memory of a small one.
func TestHugeResults(t *testing.T) {
	large := strings.Repeat("x", 300_000)
	repeated := func(s string, n int) string { return strings.Repeat(s, n) }
	many := func(n int, line string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, line, i)
		}
		return b.String()
	}
	for name, test := range map[string]struct{ format, content string }{
		"aliases": {ProcessCompose, "x: &a " + large + "\nprocesses: {p: {command: c, environment: [" +
			repeated("*a, ", 5_000) + "b]}}"},
		"templates": {ProcessCompose, "vars: {A: " + large + "}\nprocesses: {p: {command: \"" +
			repeated("{{.A}}", 50_000) + "\"}}"},
		"variables of .env": {ProcessCompose, "processes: {p: {command: a, working_dir: \"" +
			repeated("$LARGE", 50_000) + "\"}}"},
		"processes": {Supervisord, "[program:p]\ncommand=%(process_num)02d " + large + "\nnumprocs=1000\n"},
		"names":     {Supervisord, "[program:" + large + "]\ncommand=" + repeated("%(program_name)s", 40_000)},
		"literals": {Supervisord, "[supervisord]\nenvironment=A=" + large + "\n[program:p]\ncommand=" +
			repeated("%(ENV_A)s", 70_000)},
		"units":     {Procfile, many(8_000, "p%d: a\n")},
		"variables": {Supervisord, "[program:p]\ncommand=a\nenvironment=" + many(100_000, "A%d=1,")},
		"comments":  {Procman, "managed_processes:\n- id: a\n" + many(3_000, "  k%d: 1\n")},
		"depth":     {Procman, repeated("[", 500_000)},
	} {
		t.Run(name, func(t *testing.T) {
			files := map[string]string{"file": test.content, ".env": "LARGE=" + large}
			result, err := Import(test.format, filepath.Join(folder, "file"), fakeHost(files))
			_, refused := errors.AsType[*ImportError](err)
			_, faulty := errors.AsType[*config.FaultError](err)
			switch {
			case name == "units" && (err == nil || !strings.Contains(err.Error(), "too large")):
				t.Errorf("8,000 units: %v, want them refused", err)
			case err == nil:
				checkValid(t, result, files)
			case !refused && !faulty:
				t.Errorf("the error has no file: %v", err)
			}
		})
	}
}

// A file that is larger than a configuration can be is refused before it is read.
func TestLargeFiles(t *testing.T) {
	files := map[string]string{
		"file":   "[include]\nfiles=*.conf\n",
		"a.conf": strings.Repeat("; a\n", 150_000), "b.conf": strings.Repeat("; b\n", 150_000),
	}
	_, err := Import(Supervisord, filepath.Join(folder, "file"), fakeHost(files))
	if err == nil || !strings.Contains(err.Error(), "b.conf: more than 1048576 bytes to read") {
		t.Errorf("included files: %v", err)
	}
	files = map[string]string{"file": strings.Repeat("# a\n", 300_000)}
	for _, format := range Formats() {
		if _, err := Import(format, filepath.Join(folder, "file"), fakeHost(files)); err == nil {
			t.Errorf("%s: a file of %d bytes is imported", format, len(files["file"]))
		}
	}
}
