package safefile

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// Memory returns the descriptor of an anonymous file in memory with the content. It is closed when the process executes
// another program, and its offset is behind the content.
func Memory(name string, content []byte) (int, error) {
	// vm.memfd_noexec=2 refuses a file that might be executed. Linux before 6.3 does not know the flag.
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) {
		fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	}
	if err != nil {
		return -1, os.NewSyscallError("memfd_create", err)
	}
	for len(content) > 0 {
		n, err := unix.Write(fd, content)
		if err != nil {
			return -1, errors.Join(os.NewSyscallError("write", err), unix.Close(fd))
		}
		content = content[n:]
	}
	return fd, nil
}
