//go:build unix

package api

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/internal/safefile"
)

// A FIFO is refused before it is opened, because opening it would block.
func TestCertificateThatIsAFIFOIsRefused(t *testing.T) {
	files := newTLSFolder(t)
	if err := unix.Mkfifo(files.Cert, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := files.Config(nil); !errors.Is(err, safefile.ErrNotRegular) {
		t.Errorf("%v, want ErrNotRegular", err)
	}
}
