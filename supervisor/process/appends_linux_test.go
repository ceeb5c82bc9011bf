package process

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
)

func TestAppendsOnly(t *testing.T) {
	tests := map[string]struct {
		flags int
		other bool     // the process opens another file
		in    []string // behaviours around the process that opens the file
		want  bool
	}{
		"appends":                  {flags: os.O_WRONLY | os.O_APPEND, want: true},
		"appends and reads":        {flags: os.O_RDWR | os.O_APPEND, want: true},
		"reads":                    {flags: os.O_RDONLY, want: true},
		"writes":                   {flags: os.O_WRONLY},
		"reads and writes":         {flags: os.O_RDWR},
		"writes another file":      {flags: os.O_WRONLY, other: true, want: true},
		"child writes":             {flags: os.O_WRONLY, in: []string{"spawn"}},
		"child appends":            {flags: os.O_WRONLY | os.O_APPEND, in: []string{"spawn"}, want: true},
		"left by its parent":       {flags: os.O_WRONLY, in: []string{"double-fork"}},
		"cleared its environment":  {flags: os.O_WRONLY, in: []string{"clear"}},
		"cleared, left by parent":  {flags: os.O_WRONLY, in: []string{"double-fork", "clear"}},
		"truncates, as > does":     {flags: os.O_WRONLY | os.O_TRUNC},
		"truncates, appends as >>": {flags: os.O_WRONLY | os.O_TRUNC | os.O_APPEND, want: true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "worker.log")
			opened := path
			if tt.other {
				opened += ".other"
			}
			for _, name := range []string{path, opened} {
				if err := os.WriteFile(name, nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			args := append(tt.in, "open", opened, strconv.Itoa(tt.flags))
			w := startWorker(t, args[0], args[1:]...)
			w.expect(t, "ready")
			if slices.Contains(tt.in, "spawn") || slices.Contains(tt.in, "double-fork") {
				w.expect(t, "ready") // the parent's, or the child's
			}
			ctx, cancel := testDeadline()
			defer cancel()
			if only, err := w.family.AppendsOnly(ctx, path); only != tt.want || err != nil {
				t.Errorf("AppendsOnly = %t, %v, want %t", only, err, tt.want)
			}
		})
	}
}

func TestAppendsOnlyOfAMissingFile(t *testing.T) {
	ctx, cancel := testDeadline()
	defer cancel()
	if only, err := (Family{}).AppendsOnly(ctx, filepath.Join(t.TempDir(), "missing")); only || err == nil {
		t.Errorf("AppendsOnly = %t, %v, want an error", only, err)
	}
}
