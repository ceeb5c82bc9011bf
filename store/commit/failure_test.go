package commit

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
)

func TestRemedies(t *testing.T) {
	for errno, want := range map[syscall.Errno]string{
		syscall.ENOSPC: "free some space", syscall.EROFS: "for writing", syscall.EIO: "disk",
		syscall.EMFILE: "open files", syscall.EFBIG: "size of files",
	} {
		if got := unavailable(fmt.Errorf("write x: %w", errno)).Error(); !strings.Contains(got, want) ||
			!strings.Contains(got, errno.Error()) {
			t.Errorf("%q does not say %q and why", got, want)
		}
	}
	if got := unavailable(errors.New("no space left on this test's device")).Error(); strings.Contains(got, "resumes") {
		t.Errorf("%q promises too much", got)
	}
}
