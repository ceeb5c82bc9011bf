package logging

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// FuzzTerminalLog takes the parts of an event, some of which a worker chooses.
func FuzzTerminalLog(f *testing.F) {
	f.Add("worker-0", "exited with code 7", "plain")
	f.Add("worker\x1b[31m", "\x1b[2J", "two\nlines")
	f.Add("", "\u202eabc", "\xff\xfe")
	f.Fuzz(func(t *testing.T, worker, reason, more string) {
		var out bytes.Buffer
		log := newLogger(&out, toTerminal, false, slog.LevelDebug).With("more", more)
		log.Warn("worker exited", "worker", worker, "reason", reason)
		if text := out.String(); !utf8.ValidString(text) ||
			strings.ContainsFunc(text, func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }) {
			t.Errorf("printed: %q", text)
		}
		if strings.Count(out.String(), "\n") != 1 || !strings.HasSuffix(out.String(), "\n") {
			t.Errorf("more than a line: %q", out.String())
		}
	})
}
