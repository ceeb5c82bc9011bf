package executable

import (
	"os"
	"slices"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/internal/procfs"
)

// runs returns the file that a process started from the chain will have as /proc/PID/exe. It does so only if this
// process is root: for any other user a swapped file gains nothing.
func runs(chain []part) (identity.FileID, error) {
	last := slices.IndexFunc(chain, func(p part) bool { return p.format != script })
	if os.Geteuid() != 0 || last < 0 || chain[last].format != elfFormat {
		return identity.FileID{}, nil
	}
	return procfs.FileID(chain[last].path)
}
