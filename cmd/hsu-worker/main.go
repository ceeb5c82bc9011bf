// Command hsu-worker is the reference integrated unit. It has only the parts that hsu-master requires:
// it accepts --port, answers Ping, serves its business service over gRPC, and stops cleanly on SIGTERM.
//
// It holds no file and no lock, does not know the master that started it, and continues to serve after that
// master exits.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
)

// The exit codes. Those that hsu-master also has are the same there.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

const usage = `usage: hsu-worker --port N [--log-level debug|info|warn|error]

A worker of hsu-master, which starts it by itself; it also runs alone.
It serves gRPC on 127.0.0.1: proto.CoreService, proto.MyBusinessService and
grpc.health.v1.Health, until SIGTERM or SIGINT.

  --port N           TCP port to listen on, 1 to 65535 (required)
  --log-level LEVEL  what is written to standard error (default info);
                     debug adds a line for each request

Exit status: 0 stopped by a signal, 1 failed, 2 wrong usage.
`

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// run runs the worker and returns the exit code. Once the worker serves, only SIGTERM or SIGINT ends it.
func run(args []string, stdout, stderr io.Writer) int {
	options, err := parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(stdout, usage)
		return exitDone
	case err != nil:
		complain(stderr, err, `run "hsu-worker --help" for the flags`)
		return exitUsage
	}
	log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: options.level}))
	if err := serve(options.port, log); err != nil {
		complain(stderr, err,
			fmt.Sprintf("make sure that nothing else uses port %d, or choose another --port", options.port))
		return exitFailed
	}
	return exitDone
}

func complain(stderr io.Writer, err error, hint string) {
	fmt.Fprintf(stderr, "hsu-worker: error: %v\nhsu-worker: hint: %s\n", err, hint)
}

type options struct {
	port  int
	level slog.Level
}

// parse parses the flags. The error is flag.ErrHelp if help was requested.
func parse(args []string) (options, error) {
	var o options
	flags := flag.NewFlagSet("hsu-worker", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.IntVar(&o.port, "port", 0, "")
	flags.TextVar(&o.level, "log-level", slog.LevelInfo, "")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	given := false
	flags.Visit(func(f *flag.Flag) { given = given || f.Name == "port" })
	switch {
	case flags.NArg() > 0:
		return o, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case !given:
		return o, errors.New("--port is required")
	case o.port < 1 || o.port > 65535:
		return o, fmt.Errorf("--port %d: not a port between 1 and 65535", o.port)
	}
	return o, nil
}
