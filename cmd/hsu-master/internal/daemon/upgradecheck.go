package daemon

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/core-tools/hsu-master/api"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/exit"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/render"
	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/internal/handover"
	"github.com/core-tools/hsu-master/master"
	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/supervisor/process"
	"github.com/core-tools/hsu-master/supervisor/process/executable"
	"github.com/core-tools/hsu-master/supervisor/process/oneshot"
)

// upgradeCheckWord is the hidden command by which a master checks the program that is to replace it:
// "upgrade-check STATE NETWORK ADDRESS run ..." with a copy of the state, the address of the inherited listener and the
// arguments of the master. The command checks the needs of a start and changes only the copy.
const upgradeCheckWord = "upgrade-check"

// checkResult is the last line of the output of a check that passed.
type checkResult struct {
	Version string `json:"version"`
	Schema  uint64 `json:"schema"`
}

// UpgradeCheck makes "run" check the needs of a start and end. The master that is to be replaced starts it.
type UpgradeCheck struct {
	State            string // the folder of the copy
	network, address string
}

type upgradeCheckKey struct{}

// AsUpgradeCheck returns, for the arguments of an upgrade check, a context with the check and the arguments of the
// command that is checked. It returns other arguments unchanged.
func AsUpgradeCheck(ctx context.Context, args []string) (context.Context, []string) {
	if len(args) == 0 || args[0] != upgradeCheckWord {
		return ctx, args
	}
	const own = 4
	if len(args) < own {
		return ctx, args[1:]
	}
	return context.WithValue(ctx, upgradeCheckKey{}, &UpgradeCheck{args[1], args[2], args[3]}), args[own:]
}

// UpgradeCheckOf returns the check that the command line is for, nil if it is for none.
func UpgradeCheckOf(ctx context.Context) *UpgradeCheck {
	check, _ := ctx.Value(upgradeCheckKey{}).(*UpgradeCheck)
	return check
}

// Run checks the needs of a start, and prints a line of JSON with the versions of this program and of the schema
// that it writes. The error of a faulty configuration is one of [exit.Usage].
func (u *UpgradeCheck) Run(cfg Config, stdout io.Writer) error {
	if cfg.TLS != (api.TLSFiles{}) {
		if _, err := cfg.TLS.Config(discard); err != nil {
			return exit.Usage(err)
		}
	}
	if u.network == "tcp" {
		address, err := net.ResolveTCPAddr(u.network, u.address)
		if err == nil {
			err = cfg.checkAddress(address)
		}
		if err != nil {
			return fmt.Errorf("inherited listener: %w", err)
		}
	}
	schema, err := openCopy(u.State)
	if err != nil {
		return err
	}
	line, err := json.Marshal(checkResult{Version: cfg.Master.Version, Schema: schema})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(stdout, "%s\n", line)
	return err
}

// openCopy opens the copy of the state, which converts it, and returns the version of its schema.
func openCopy(dir string) (schema uint64, err error) {
	db, err := store.Open(dir, store.Options{Logger: discard})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	snap, err := db.Snapshot()
	return snap.SchemaVersion, err
}

// ownProgram returns the path at which this program was started, or that of its file.
func ownProgram() string {
	if filepath.IsAbs(os.Args[0]) {
		return os.Args[0]
	}
	own, err := os.Executable()
	if err != nil {
		return os.Args[0]
	}
	return own
}

// programChecker checks programs that are to replace this one. It executes the program that it has checked last.
type programChecker struct {
	own    *os.File             // this program
	target *handover.Executable // nil if none has passed the check
}

// open opens the program to check, and this program for the case that the other one fails.
func (c *programChecker) open(path string) (err error) {
	if c.own == nil {
		if c.own, err = handover.Self(); err != nil {
			return fmt.Errorf("open this program for the case that the new one fails: %w", err)
		}
	}
	_ = c.target.Close() // it was only read
	c.target, err = handover.OpenExecutable(path)
	return err
}

// close closes the files of the programs.
func (c *programChecker) close() {
	_ = c.own.Close() // nil, or only read
	_ = c.target.Close()
}

// execute executes the program that was checked. It returns only if that fails.
func (c *programChecker) execute(files map[string]*os.File, h handed, caught *signals) error {
	files[formerFile], files[programFile] = c.own, c.target.File()
	defer delete(files, formerFile)
	defer delete(files, programFile)
	return execute(handover.Program{Args: os.Args, Env: os.Environ()}, c.target.Path, files, h, caught)
}

// check runs another program to check that it can take over.
func (c *programChecker) check(ctx context.Context, args master.UpgradeCheck) (master.UpgradeTarget, error) {
	target, err := c.ask(ctx, args)
	if err != nil {
		err = fmt.Errorf("check %s: %w", render.Printable(args.Binary), err)
	}
	return target, err
}

func (c *programChecker) ask(ctx context.Context, args master.UpgradeCheck) (target master.UpgradeTarget, err error) {
	if _, err := executable.Check(args.Binary, uint32(os.Geteuid())); err != nil { //nolint:gosec // not negative
		return target, err
	}
	if err := c.open(args.Binary); err != nil {
		return target, err
	}
	output, err := runCheck(ctx, args, c.target)
	if err != nil {
		return target, err
	}
	var result checkResult
	decoder := json.NewDecoder(bytes.NewReader([]byte(output[strings.LastIndexByte(output, '\n')+1:])))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&result); err != nil || result.Version == "" {
		return target, fmt.Errorf("it does not answer as hsu-master does%s", endOf(output))
	}
	return master.UpgradeTarget{Version: result.Version, Schema: result.Schema}, nil
}

// runCheck has the program check whether it can take over, and returns its output.
func runCheck(ctx context.Context, c master.UpgradeCheck, program *handover.Executable) (output string, err error) {
	token := rand.Text()
	device, inode := program.ID()
	spec := process.Spec{
		Path: c.Binary, Exe: identity.FileID{Device: device, Inode: inode},
		Args: append([]string{upgradeCheckWord, c.State, c.Listener.Network(), c.Listener.String()}, os.Args[1:]...),
		Env: slices.Concat(slices.DeleteFunc(crashpoint.Without(os.Environ()), func(v string) bool {
			return strings.HasPrefix(v, "NOTIFY_SOCKET=") || strings.HasPrefix(v, "WATCHDOG_")
		}), c.Env, []string{process.EnvWorkerToken + "=" + token}),
	}
	var ran oneshot.Ran
	err = crashpoint.Do(crashpoint.UpgradeCheck, func() (err error) {
		ran, err = oneshot.Run(ctx, oneshot.Spec{Spec: spec}, token)
		return err
	})
	output = strings.TrimSpace(string(ran.Output))
	switch {
	case err != nil:
		return "", err
	case ran.Cut && errors.Is(ctx.Err(), context.Canceled):
		return "", master.ErrAborted
	case ran.Cut:
		return "", fmt.Errorf("not ready in time%s", endOf(output))
	case !ran.Exit.Clean():
		return "", fmt.Errorf("%s%s", ran.Exit, endOf(output))
	}
	return output, nil
}

// endOf returns the end of the output of a check for the end of an error message.
func endOf(output string) string {
	const most = 500
	switch {
	case output == "":
		return ""
	case len(output) > most:
		output = "..." + output[len(output)-most:]
	}
	return ": " + render.Printable(output)
}
