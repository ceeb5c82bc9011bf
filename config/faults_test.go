package config

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
)

var update = flag.Bool("update", false, "write the wanted output of tests, and docs/CONFIGURATION.md")

// TestFaults loads the faulty files of testdata/faults. Each archive has the files of /etc/hsu, and the wanted text of
// the error.
func TestFaults(t *testing.T) {
	archives, err := filepath.Glob("testdata/faults/*.txtar")
	if err != nil || len(archives) == 0 {
		t.Fatal("no archives: ", err)
	}
	for _, path := range archives {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			want := &archive.Files[len(archive.Files)-1]
			if want.Name != "want" {
				t.Fatal("the last file must be want")
			}
			files := map[string]string{}
			for _, f := range archive.Files[:len(archive.Files)-1] {
				files["/etc/hsu/"+f.Name] = string(f.Data)
			}
			host := fakeHost(files)
			host.Root = !strings.Contains(string(archive.Comment), "does not run the master as root")
			_, loadErr := Load(mainFile, host)
			if loadErr == nil {
				t.Fatal("no fault")
			}
			got := strings.ReplaceAll(loadErr.Error(), "/etc/hsu/", "") + "\n"
			if strings.Contains(got, "hunter2") || strings.Contains(got, "987654") {
				t.Errorf("a secret is shown:\n%s", got)
			}
			if *update {
				want.Data = []byte(got)
				if err := os.WriteFile(path, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(string(want.Data), got); diff != "" {
				t.Errorf("the faults differ (-want +got), -update accepts them:\n%s", diff)
			}
		})
	}
}

// A syntax error is reported in words that tell what to write, not in those of the parser.
func TestSyntaxErrors(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{
			"units:\n  a:\n    kind: managed\n   replicas: 2",
			"4:4: syntax error: this does not fit to the lines above: indent",
		},
		{
			"units:\n  a:\n    kind: managed\n      nice: 2",
			"3:11: syntax error: keys are below a value, or a colon is in it",
		},
		{"units:\n\ta: {}", "2:1: syntax error: found character '\\t' that cannot start any token: indent with"},
		{
			"units:\n  a:\n    command [a]\n    nice: 1",
			"3:5: syntax error: this is no key with a value: write a key, a colon",
		},
		{
			"units:\n  a:\n    nice:3\n    replicas: 1",
			"3:5: syntax error: this is no key with a value: write a key, a colon",
		},
		{"units: {a: {schedule: * * * * *}}", "syntax error: a * begins an alias, and an & an anchor: quote"},
		{"units:\n  a:\n    schedule: * * * * *", "syntax error: a * begins an alias: quote a text such as"},
		{"units: {a: {command: [a}}", "syntax error: "},
		{
			"units:\n  a:\n    command: [a\n    replicas: 3",
			"syntax error: the list before this has no end: a comma or a ] is missing",
		},
		{
			"units:\n  a:\n    schedule: */5 * * * *\n    nice: 1",
			"3:19: syntax error: a text follows a complete value: quote all",
		},
		{"units:\n  a:\n    command: - a", "3:14: syntax error: a list begins in the line below its key"},
		{"units: {a: {}}}", "1:15: syntax error: this } closes nothing: there is one too many"},
		{"units: {a: {command: [a]]}}", "1:25: syntax error: "},
		{"units: [a", "1:8: syntax error: the list has no end: a ] is missing"},
		{"units: {a", "1:9: syntax error: the map has no end: a } is missing"},
		{"units:\n  a:\n    command: [\"a]", `3:15: syntax error: the text has no end: a " is missing`},
		{"units:\n  a:\n    command: ['a]", "3:15: syntax error: the text has no end: a ' is missing"},
		{"units: @a", "1:8: syntax error: '@' is a reserved character: a text that begins with it needs quotes"},
	} {
		if _, err := load(test.text + "\n"); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%q: %v, want %s", test.text, err, test.want)
		}
	}
}
