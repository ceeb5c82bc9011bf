package importer

import (
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

// Any bytes are imported or refused, and each result is valid where it is saved.
func fuzzFormat(f *testing.F, format string) {
	samples, err := filepath.Glob("testdata/" + format + "*.txtar")
	if err != nil || len(samples) == 0 {
		f.Fatalf("%d samples, %v", len(samples), err)
	}
	for _, sample := range samples {
		archive, err := txtar.ParseFile(sample)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(archive.Files[0].Data)
	}
	const limit = 4 << 10 // larger files take the fuzzer's time, and find the same
	f.Fuzz(func(t *testing.T, content []byte) {
		if len(content) > limit {
			return
		}
		files := map[string]string{
			"file": string(content), ".env": "A=b\nPORT=3000\n", "more.conf": "[program:more]\ncommand=more\n",
		}
		result, err := Import(format, filepath.Join(folder, "file"), fakeHost(files))
		if err != nil {
			if err.Error() == "" {
				t.Error("the error says nothing")
			}
			return
		}
		checkValid(t, result, files)
	})
}

func FuzzSupervisord(f *testing.F) { fuzzFormat(f, Supervisord) }

func FuzzProcessCompose(f *testing.F) { fuzzFormat(f, ProcessCompose) }

func FuzzProcfile(f *testing.F) { fuzzFormat(f, Procfile) }

func FuzzProcman(f *testing.F) { fuzzFormat(f, Procman) }
