package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/rogpeppe/go-internal/txtar"
)

// FuzzLoad reads any bytes as a file. There is a file or there are faults, no fault has a secret of the host, and what
// is shown of a file means the same.
func FuzzLoad(f *testing.F) {
	archives, _ := filepath.Glob("testdata/faults/*.txtar")
	for _, path := range archives {
		archive, err := txtar.ParseFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(archive.Files[0].Data)
	}
	example, err := os.ReadFile(exampleFile)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(example)
	f.Add([]byte(Example))
	f.Add([]byte("defaults: {kind: managed, log: {keep: 2}}\nunits: {a: {command: [a], log: {to: inherit}}}\n"))
	const limit = 4 << 10 // larger files take the fuzzer's time, and find the same
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) > limit {
			return
		}
		load := func(text string) (*File, error) {
			return Load(mainFile, fakeHost(map[string]string{
				mainFile: text, "/run/secrets/token": "hunter2\n", "/etc/hsu/search.env": "A=hunter2",
			}))
		}
		file, err := load(string(text))
		if err != nil {
			checkFaults(t, err, string(text))
			return
		}
		var shown strings.Builder
		if err := file.WriteYAML(&shown); err != nil {
			t.Fatal(err)
		}
		again, err := load(shown.String())
		if err != nil {
			t.Fatalf("what is shown has faults:\n%v\n%s", err, shown.String())
		}
		file.Include, again.Include = nil, nil
		withoutRotation(file, again)
		same := cmp.Options{cmpopts.IgnoreUnexported(File{}), cmpopts.EquateEmpty(), sameZone}
		if diff := cmp.Diff(file, again, same); diff != "" {
			t.Errorf("what is shown differs (-file +shown):\n%s\n%s", diff, shown.String())
		}
	})
}

// withoutRotation clears what units have of the rotation of a file to which no output goes: it is not shown.
func withoutRotation(files ...*File) {
	for _, f := range files {
		for i, u := range f.Units {
			if u.Log.To != LogToFile {
				f.Units[i].Log = Log{To: u.Log.To}
			}
		}
	}
}

func checkFaults(t *testing.T, err error, text string) {
	t.Helper()
	faulty, ok := errors.AsType[*FaultError](err)
	if !ok || len(faulty.Faults) == 0 {
		t.Fatalf("the error is no list of faults: %v", err)
	}
	message := err.Error()
	if !utf8.ValidString(message) || strings.ContainsAny(message, "\x00\x1b\r") {
		t.Errorf("the message cannot be printed: %q", message)
	}
	if strings.Contains(message, "hunter2") && !strings.Contains(text, "hunter2") {
		t.Errorf("the message has a secret: %s", message)
	}
	lines := strings.Count(text, "\n") + strings.Count(text, "\r") + 2
	for _, f := range faulty.Faults {
		if f.Line < 0 || f.Line > lines || f.Message == "" || (f.Source == "") != (f.Caret == "") {
			t.Errorf("%+v", f)
		}
	}
}
