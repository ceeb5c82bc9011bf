package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/core-tools/hsu-master/api"
	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/describe"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/exit"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/render"
	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/supervisor/registrations"
	"github.com/core-tools/hsu-master/supervisor/services"
)

func serviceCommand() *cli.Command {
	list := leaf("list", "list the services with their endpoints and figures",
		listServices, jsonOutput(),
		&cli.BoolFlag{
			Name: "watch",
			Usage: "print a line for each change until interrupted, also across restarts of the master; " +
				"with --json an object for each",
		})
	register := leafWith("register", "route calls of a service to an address that is no worker",
		registerService, "NAME HOST:PORT", 2, 2,
		&cli.DurationFlag{
			Name: "ttl",
			Usage: "`DURATION` remove the endpoint when it sends no heartbeat for this long, 1s to 24h; " +
				"0 keeps it (default 0)",
		})
	register.Description = `The endpoint gets calls as soon as it answers a health check: the Ping of an
HSU, the standard health service, or a TCP connection. To send a heartbeat, run
the same command again, or call Heartbeat of hsu.master.admin.v1.Registry on the
admin socket.`
	deregister := leafWith("deregister", "remove one registered endpoint of a service, or all of them",
		deregisterService, "NAME [HOST:PORT]", 1, 2)
	return group("service", "inspect the services, and register endpoints",
		list, register, deregister)
}

// leafWith returns a leaf that takes from least to most arguments.
func leafWith(name, usage string, action cli.ActionFunc, args string, least, most int, flags ...cli.Flag) *cli.Command {
	cmd := leaf(name, usage, nil, flags...)
	cmd.ArgsUsage = args
	cmd.Action = func(c *cli.Context) error {
		switch {
		case c.NArg() > most:
			return exit.Usagef("%s takes %s, got %q too", c.Command.HelpName, args, c.Args().Get(most))
		case c.NArg() < least:
			return exit.Usagef("%s takes %s: see %q", c.Command.HelpName, args, c.Command.HelpName+" --help")
		}
		return action(c)
	}
	return cmd
}

func listServices(c *cli.Context) error {
	f, err := foldersOf(c)
	if err != nil {
		return err
	}
	if c.Bool("watch") {
		return watchServices(c, f)
	}
	state, err := readState(c.Context, f)
	if err != nil {
		return err
	}
	if c.Bool(jsonFlag) {
		return render.JSON(c.App.Writer, servicesJSON{state.GetSource(), servicesToJSON(state.GetServices())})
	}
	describe.Offline(c.App.Writer, state)
	if err := describe.Services(c.App.Writer, state.GetServices(), state.GetSource() == api.SourceLive); err != nil {
		return err
	}
	describe.BadRecords(c.App.Writer, state)
	return nil
}

// withRegistry calls ask with a client of the running master's registry of services.
func withRegistry(c *cli.Context, ask func(ctx context.Context, client adminpb.RegistryClient) error) error {
	f, err := foldersOf(c)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.Context, answerWithin)
	defer cancel()
	conn, err := dialRegistry(ctx, f)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	return registryError(ask(ctx, adminpb.NewRegistryClient(conn)))
}

// dialRegistry connects to the master of these folders, and verifies that it uses this state folder.
func dialRegistry(ctx context.Context, f folders) (*grpc.ClientConn, error) {
	if _, err := liveState(ctx, f); errors.Is(err, exit.ErrNoMaster) {
		if holder := store.Holder(f.state); holder != nil {
			return nil, offline(f, holder)
		}
		return nil, exit.Hint(err, `start one with "hsu-master run", or name its --state-dir`)
	} else if err != nil {
		return nil, err
	}
	return dialAdmin(ctx, f)
}

// registryError turns a status of the registry into an error for the user.
func registryError(err error) error {
	said := errors.New(status.Convert(err).Message())
	switch status.Code(err) {
	case codes.OK:
		return nil
	case codes.InvalidArgument:
		return exit.Usage(said)
	case codes.NotFound:
		return exit.Hint(said, `"hsu-master service list" lists the registered endpoints`)
	case codes.DeadlineExceeded:
		return exit.Hint(fmt.Errorf("the master does not answer within %s", answerWithin),
			"see its log; the request may have been executed")
	case codes.Unimplemented:
		return errOlder
	default:
		return fmt.Errorf("ask the master: %w", said)
	}
}

func registerService(c *cli.Context) error {
	name, address, ttl := c.Args().Get(0), c.Args().Get(1), c.Duration("ttl")
	if err := registrations.Check(name, address, ttl); err != nil {
		return exit.Usage(err)
	}
	return withRegistry(c, func(ctx context.Context, client adminpb.RegistryClient) error {
		resp, err := client.Register(ctx, &adminpb.RegisterRequest{
			Service: name, Address: address, Ttl: durationpb.New(ttl),
		})
		if err != nil {
			return err
		}
		e := resp.GetEndpoint()
		how := "it answers and gets calls"
		if !e.GetHealthy() {
			how = "it gets calls as soon as it answers, now: " + render.Printable(e.GetReason())
		}
		fmt.Fprintf(c.App.Writer, "registered %s at %s: %s\n", name, address, how)
		if ttl > 0 {
			fmt.Fprintf(c.App.Writer, "next: the same again within %s, and again and again\n", ttl)
		}
		return nil
	})
}

func deregisterService(c *cli.Context) error {
	name, address := c.Args().Get(0), c.Args().Get(1)
	if err := services.CheckName(name); err != nil {
		return exit.Usage(err)
	}
	if c.NArg() > 1 {
		if err := registrations.CheckAddress(address); err != nil {
			return exit.Usage(err)
		}
	}
	return withRegistry(c, func(ctx context.Context, client adminpb.RegistryClient) error {
		resp, err := client.Deregister(ctx, &adminpb.DeregisterRequest{Service: name, Address: address})
		if err != nil {
			return err
		}
		for _, gone := range resp.GetRemoved() {
			fmt.Fprintf(c.App.Writer, "deregistered %s at %s\n", name, render.Printable(gone))
		}
		return nil
	})
}

// wordsOf returns the values of a repeatable flag. An environment variable holds several values separated by
// blanks; no value contains a blank.
func wordsOf(c *cli.Context, flag string, fail func(string, ...any)) []string {
	var words []string
	for _, value := range c.StringSlice(flag) {
		fields := strings.Fields(value)
		if len(fields) == 0 {
			fail("--%s is empty: see \"hsu-master run --help\"", flag)
		}
		words = append(words, fields...)
	}
	return words
}

// policiesOf parses --service-option.
func policiesOf(c *cli.Context, fail func(string, ...any)) map[string]services.Policy {
	policies := make(map[string]services.Policy)
	for _, text := range wordsOf(c, "service-option", fail) {
		name, p, err := services.ParsePolicy(text)
		if err != nil {
			fail("--service-option: %w", err)
			continue
		}
		if _, twice := policies[name]; twice {
			fail("--service-option: %s is given twice: put all fields into one", name)
		}
		policies[name] = p
	}
	return policies
}

// noService, as the only --worker-service, means that the workers offer no service.
const noService = "none"

// workerServicesOf parses --worker-service; none reports whether it is [noService].
func workerServicesOf(c *cli.Context, fail func(string, ...any)) (names []string, none bool) {
	words := wordsOf(c, "worker-service", fail)
	if slices.Contains(words, noService) {
		if len(words) > 1 {
			fail("--worker-service %s: cannot be combined with other services", noService)
		}
		return nil, true
	}
	for _, name := range words {
		switch err := services.CheckName(name); {
		case err != nil:
			fail("--worker-service: %w", err)
		case services.Infrastructure(name):
			fail("--worker-service %s: each endpoint has this service of its own, omit it", name)
		case slices.Contains(names, name):
			fail("--worker-service %s is given twice", strconv.Quote(name))
		default:
			names = append(names, name)
		}
	}
	return names, false
}
