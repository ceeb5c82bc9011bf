package daemon

import (
	"errors"

	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/exit"
	"github.com/core-tools/hsu-master/master"
)

// withoutSuccess returns nil if the master has ended because an essential worker has ended with success, as the command
// of a container does. Otherwise it returns the error, with a hint if such a worker has failed.
func withoutSuccess(err error) error {
	essential, ended := errors.AsType[*master.EssentialError](err)
	switch {
	case !ended:
		return err
	case essential.Succeeded && essential.Err == nil:
		return nil
	case essential.Succeeded:
		return err
	}
	if essential.LogPath == "" {
		return exit.Hint(err, "the next start of the master tries it once")
	}
	return exit.Hint(err, "its output is in %s; the next start of the master tries it once", essential.LogPath)
}
