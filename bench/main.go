// Command bench measures hsu-master against baselines and prints a table of ratios: "make bench" in the root of the
// repository, or "go run ." here. It is a module of its own, so that the dependencies of baselines are none of the
// product.
//
// A ratio compares the product with one of its components: the same gRPC server without counting, or a bare loop
// that starts the same workers. Both sides take turns within each round. The result is the median of the rounds'
// ratios, since single values vary with the other activity of the machine. The product runs as its released binary,
// with no flag that is not available to users; the baselines are in package baseline. Servers, load and baselines
// are separate processes: this program runs itself again for them.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) > 2 && os.Args[1] == childMark {
		os.Exit(runChild(os.Args[2:], os.Stdin, os.Stdout, os.Stderr))
	}
	os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}

const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// childMark as first argument makes this program run one of its child parts.
const childMark = "child"

// releaseTags are the build tags in the Makefile's BUILD; a test compares them.
const releaseTags = "grpcnotrace,urfave_cli_no_docs"

type options struct {
	rounds int
	rows   *regexp.Regexp
	json   string
	dir    string
	bin    string
	quick  bool
	// exactly means that the number of rounds was given.
	exactly bool
	calm    time.Duration
}

const usage = `usage: go run . [flags]

Measures hsu-master against its baselines, prints a table and writes it as JSON.
All is on loopback, on free ports and in a temporary folder.

  --rounds N      rounds to take the median of (default 7, with --quick 3;
                  rows that take long or vary little have fewer)
  --rows REGEXP   only these rows, e.g. 'always|cpu' or '^re-attach'
  --json FILE     where the table goes as JSON (default bench.json, "" for nowhere)
  --dir DIR       folder on the disk to be measured (default the system's for
                  temporary files); not in memory: a sync costs nothing there
  --bin DIR       where hsu-master, hsu-worker, bench and stub are (default: they
                  are built as "make build" does)
  --calm TIME     wait up to TIME before each round for other processes to leave
                  the processors alone (default 0s: do not wait)
  --quick         shorter turns and fewer rounds, to see that all works

Exit status: 0 measured, whatever the ratios are; 1 failed, but the table has the
rows that were measured; 2 wrong usage.
`

func parse(args []string, rows []figure) (options, error) {
	var o options
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	expr := ""
	flags.IntVar(&o.rounds, "rounds", 0, "")
	flags.StringVar(&expr, "rows", "", "")
	flags.StringVar(&o.json, "json", "bench.json", "")
	flags.StringVar(&o.dir, "dir", os.TempDir(), "")
	flags.StringVar(&o.bin, "bin", "", "")
	flags.DurationVar(&o.calm, "calm", 0, "")
	flags.BoolVar(&o.quick, "quick", false, "")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	o.exactly = o.rounds > 0
	switch {
	case o.calm < 0:
		return o, fmt.Errorf("--calm %s: must be a duration of 0 or more such as 30s", o.calm)
	case o.rounds < 0:
		return o, fmt.Errorf("--rounds %d: must be 1 or more", o.rounds)
	case o.rounds == 0 && o.quick:
		o.rounds = 3
	case o.rounds == 0:
		o.rounds = 7
	}
	var err error
	if o.rows, err = regexp.Compile(expr); err != nil {
		return o, fmt.Errorf("--rows: %w", err)
	}
	for _, f := range rows {
		if o.rows.MatchString(f.key) {
			return o, nil
		}
	}
	return o, fmt.Errorf("--rows %q matches no row", expr)
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	fail := func(err error, code int) int {
		fmt.Fprintf(stderr, "bench: error: %v\n", err)
		return code
	}
	opts, err := parse(args, figures)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(stdout, usage)
		return exitDone
	case err != nil:
		return fail(fmt.Errorf(`%w: see "go run . --help"`, err), exitUsage)
	}
	// The signals stay caught until the end, so that this program first stops everything that it started.
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	result, err := measure(ctx, opts, stderr)
	if ctx.Err() != nil {
		return fail(errors.New("interrupted"), exitFailed)
	}
	if len(result.Rows) > 0 {
		err = errors.Join(err, publish(result, opts.json, stdout))
	}
	if err != nil {
		return fail(err, exitFailed)
	}
	return exitDone
}

// publish prints the report, and writes it to the file path unless that is empty.
func publish(r report, path string, stdout io.Writer) error {
	if err := r.print(stdout); err != nil {
		return err
	}
	if path == "" {
		return nil
	}
	if err := r.write(path); err != nil {
		return err
	}
	_, err := fmt.Fprintf(stdout, "written to %s\n", path)
	return err
}
