package install

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/exit"
	"github.com/core-tools/hsu-master/deploy"
)

// unitFolders returns the folders in which a unit can be that one in dir would hide or compete with.
func unitFolders(dir string) []string {
	if dir != SystemUnits {
		return []string{dir}
	}
	return []string{dir, "/run/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system"}
}

// checkFree returns an error if the name of an installation is that of units of others, or its address that of another
// socket.
func checkFree(dir string, o deploy.Options) error {
	for _, folder := range unitFolders(dir) {
		for _, name := range []string{o.ServiceName(), o.SocketName()} {
			if err := checkOurs(filepath.Join(folder, name)); err != nil {
				return err
			}
		}
		sockets, err := filepath.Glob(filepath.Join(folder, "*.socket"))
		if err != nil {
			return fmt.Errorf("list the sockets: %w", err)
		}
		for _, path := range sockets {
			if filepath.Base(path) == o.SocketName() {
				continue
			}
			if taken := listenerOf(path, o.ListenStream); taken != "" {
				return exit.Hint(exit.Usagef("%s is taken: %s has ListenStream=%s", o.ListenStream, path, taken),
					"give this master another address, with the key listen of its file, or with --port")
			}
		}
	}
	return nil
}

// checkStateFolder returns an error if the state folder that systemd would make for an installation has the files of
// another program: systemd gives all of them to the user of the service.
func checkStateFolder(dir string) error {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist), err == nil && len(entries) == 0:
		return nil
	case err != nil:
		return fmt.Errorf("look at the state directory: %w", err)
	}
	for _, entry := range entries {
		if slices.Contains([]string{"master-id", "master.lock", "state.db"}, entry.Name()) {
			return nil
		}
	}
	return exit.Hint(exit.Usagef("%s has files of another program", dir), "choose another --%s", NameFlag)
}

// checkOurs returns an error if the unit at a path exists and is none of hsu-master's.
func checkOurs(path string) error {
	text, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("look at the unit: %w", err)
	case deploy.IsOurs(string(text)):
		return nil
	}
	return exit.Hint(exit.Usagef("%s is a unit of another program", path), "choose another --%s", NameFlag)
}

// listenerOf returns the address of a socket unit that a listener of another address cannot have too, or "".
func listenerOf(path, address string) string {
	text, err := os.ReadFile(path)
	wanted, badAddress := netip.ParseAddrPort(address)
	if err != nil || badAddress != nil {
		return "" // a link to nowhere is no unit
	}
	for line := range strings.Lines(string(text)) {
		value, found := strings.CutPrefix(strings.TrimSpace(line), "ListenStream=")
		if !found {
			continue
		}
		if port, err := netip.ParseAddrPort("[::]:" + value); err == nil && port.Port() == wanted.Port() {
			return value // a number is that port of each address
		}
		other, err := netip.ParseAddrPort(value)
		if err == nil && other.Port() == wanted.Port() &&
			(other.Addr() == wanted.Addr() || other.Addr().IsUnspecified() || wanted.Addr().IsUnspecified()) {
			return value
		}
	}
	return ""
}
