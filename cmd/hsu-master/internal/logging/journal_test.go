//go:build unix

package logging

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

func TestJournalGetsPrioritiesAndNoTime(t *testing.T) {
	for _, test := range []struct {
		json bool
		want string
	}{
		{false, "<7>level=DEBUG msg=asked part=x in=1.5s\n<6>level=INFO msg=asked part=x in=1.5s\n" +
			"<4>level=WARN msg=asked part=x in=1.5s\n<3>level=ERROR msg=asked part=x in=1.5s\n"},
		{true, `<7>{"level":"DEBUG","msg":"asked","part":"x","in":"1.5s"}` + "\n" +
			`<6>{"level":"INFO","msg":"asked","part":"x","in":"1.5s"}` + "\n" +
			`<4>{"level":"WARN","msg":"asked","part":"x","in":"1.5s"}` + "\n" +
			`<3>{"level":"ERROR","msg":"asked","part":"x","in":"1.5s"}` + "\n"},
	} {
		var out bytes.Buffer
		log := newLogger(&out, toJournal, test.json, slog.LevelDebug).With("part", "x")
		for _, level := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError} {
			log.Log(t.Context(), level, "asked", "in", 1500*time.Millisecond)
		}
		if got := out.String(); got != test.want {
			t.Errorf("the journal gets\n%swant\n%s", got, test.want)
		}
	}
}

func TestJournalIsKnownByDeviceAndInode(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "stream"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	stat := info.Sys().(*syscall.Stat_t)
	stream := fmt.Sprintf("%d:%d", stat.Dev, stat.Ino)
	for _, test := range []struct {
		stream string
		want   bool
	}{{stream, true}, {"", false}, {stream + "0", false}, {"8:1", false}} {
		if got := isJournal(f, test.stream); got != test.want {
			t.Errorf("isJournal with JOURNAL_STREAM=%s: %v, want %v", test.stream, got, test.want)
		}
	}
	if isJournal(&bytes.Buffer{}, stream) {
		t.Error("a buffer is the journal")
	}
}
