package logs

import (
	"bytes"
	"compress/gzip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/core-tools/hsu-master/supervisor/logs/layout"
)

func zipped(t *testing.T, text string) string {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestCopyAll(t *testing.T) {
	marker := layout.Marker{ID: 7, N: 11, Cut: 128, End: 200}
	marked := string(marker.Bytes()) + strings.Repeat("r", 71) + "\nnew\n"
	tests := map[string]struct {
		files map[string]string // by the end of their names
		want  string
	}{
		"no log": {},
		"log":    {map[string]string{"": "a\n\nb"}, "a\n\nb"},
		"holes":  {map[string]string{"": "\x00\x00a\n\x00b\n"}, "a\nb\n"},
		"filler": {map[string]string{"": string(layout.Filler(50)) + " \n"}, " \n"},
		"in order": {
			map[string]string{"": "d\n", ".10": "c\n", ".9": "b\n", ".2.gz": zipped(t, "a\n")}, "a\nb\nc\nd\n",
		},
		"both forms": {map[string]string{"": "b\n", ".1": "a\n", ".1.gz": zipped(t, "a\n")}, "a\nb\n"},
		"copy": {
			map[string]string{"": "b\n", ".1": "a\n", layout.CopyPath("", 8): "b\n", ".1.gz.tmp": "x"}, "a\nb\n",
		},
		"marked, copied": {
			map[string]string{"": marked, ".10": "old\n", layout.CopyPath("", 7): "copied\n"}, "old\ncopied\nnew\n",
		},
		"marked, renamed": {map[string]string{"": marked, ".10": "old\n", ".11": "copied\n"}, "old\ncopied\nnew\n"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "w.log")
			for end, content := range tt.files {
				if err := os.WriteFile(path+end, []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			var got bytes.Buffer
			if err := CopyAll(&got, path); err != nil || got.String() != tt.want {
				t.Errorf("%q, %v, want %q", got.String(), err, tt.want)
			}
		})
	}
}

func TestPolicyWithDefaults(t *testing.T) {
	for _, tt := range []struct{ policy, want Policy }{
		{Policy{}, DefaultPolicy()},
		{Policy{Keep: KeepNone}, Policy{MaxSize: 10 << 20, Keep: KeepNone}},
		{Policy{MaxSize: 1, Compress: true}, Policy{MaxSize: 1, Keep: 5, Compress: true}},
	} {
		if got := tt.policy.WithDefaults(); got != tt.want {
			t.Errorf("%+v: %+v, want %+v", tt.policy, got, tt.want)
		}
	}
}
