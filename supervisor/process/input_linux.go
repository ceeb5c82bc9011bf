package process

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/internal/safefile"
)

// InputOf returns a file for [Spec.Input] that has the content, and can only be read. It is complete before a process
// is started with it, so none can find a part of it, even if this process is killed meanwhile.
func InputOf(content []byte) (*os.File, error) {
	fd, err := safefile.Memory("hsu-input", content)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	return os.Open(fmt.Sprintf("/proc/self/fd/%d", fd))
}
