package worker

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
)

// Callers compare the socket with nil.
func TestNoNotifySocketAfterAnError(t *testing.T) {
	n, path := NewNotifier(t.TempDir()), filepath.Join(t.TempDir(), "w.notify")
	if err := os.MkdirAll(filepath.Join(path, "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	if s, err := n.Listen(path, uint32(os.Geteuid()), log); s != nil || err == nil {
		t.Errorf("Listen at a folder: %v, %v, want nil and an error", s, err)
	}
	if s, err := n.Restore(path, nil, log); s != nil || err == nil {
		t.Errorf("Restore at a folder: %v, %v, want nil and an error", s, err)
	}
}
