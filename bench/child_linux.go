package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// childParts are the parts of this program that run as separate processes. Each answers every line of JSON on its
// standard input with one on its standard output, and exits at the end of its input.
var childParts = map[string]func(*childIO) error{
	"load":      childLoad,
	"uncounted": childUncounted,
	"sync":      childSync,
	"start":     childStart,
	"idle":      childIdle,
	"lean":      childLean,
	"worker":    childWorker,
	"bulk":      childBulk,
	"copy":      childCopy,
	"hold":      childHold,
	"parse":     childParse,
	"serve":     childServe,
	"write":     childWrite,
	"speak":     childSpeak,
	"churn":     childChurn,
}

// childIO is the part's side of the conversation.
type childIO struct {
	args []string
	in   *json.Decoder
	out  *json.Encoder
}

// orders calls act for each order until the input ends.
func orders[Order, Answer any](c *childIO, act func(Order) (Answer, error)) error {
	for {
		var order Order
		if err := c.in.Decode(&order); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		answer, err := act(order)
		if err != nil {
			return err
		}
		if err := c.out.Encode(answer); err != nil {
			return err
		}
	}
}

func runChild(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	part, ok := childParts[args[0]]
	if !ok {
		fmt.Fprintf(stderr, "no part %q\n", args[0])
		return exitUsage
	}
	if err := part(&childIO{args: args[1:], in: json.NewDecoder(stdin), out: json.NewEncoder(stdout)}); err != nil {
		fmt.Fprintf(stderr, "%s: %v\n", args[0], err)
		return exitFailed
	}
	return exitDone
}

// child is a running part, as seen by the parent.
type child struct {
	name   string
	cmd    *exec.Cmd
	in     io.WriteCloser
	orders *json.Encoder
	out    *json.Decoder
	stderr tail
	once   sync.Once
	err    error
}

// startChild runs this program again as the named part.
func (l *lab) startChild(name string, args ...string) (_ *child, err error) {
	c := &child{name: name, cmd: exec.Command(l.benchPath, append([]string{childMark, name}, args...)...)}
	c.cmd.Stderr = &c.stderr
	c.cmd.SysProcAttr = ownGroup()
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	c.orders, c.out = json.NewEncoder(c.in), json.NewDecoder(out)
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return c, nil
}

// ownGroup keeps the terminal's Ctrl-C from a process, because this program stops the process itself.
func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

func (c *child) pid() int { return c.cmd.Process.Pid }

// ask sends an order and waits for the answer. If ctx ends, ask kills the process.
func (c *child) ask(ctx context.Context, order, answer any) error {
	defer context.AfterFunc(ctx, func() { _ = c.cmd.Process.Kill() })()
	err := c.orders.Encode(order)
	if err == nil {
		err = c.out.Decode(answer)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("%s does not answer: %w", c.name, err), c.stop())
	}
	return nil
}

// childPatience is how long a part may take to exit after the end of its input.
const childPatience = 10 * time.Second

// stop stops the process and waits for it. Further calls return the same result.
func (c *child) stop() error {
	c.once.Do(func() {
		_ = c.in.Close() // the process may have exited already
		defer time.AfterFunc(childPatience, func() { _ = c.cmd.Process.Kill() }).Stop()
		if err := c.cmd.Wait(); err != nil {
			c.err = fmt.Errorf("%s: %w%s", c.name, err, c.stderr.text())
		}
	})
	return c.err
}

// tail keeps the end of a process's standard error.
type tail struct {
	mu  sync.Mutex
	end bytes.Buffer
}

const tailSize = 4 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.end.Write(p)
	if extra := t.end.Len() - tailSize; extra > 0 {
		t.end.Next(extra)
	}
	return len(p), nil
}

// text returns the tail in a form that can follow an error message.
func (t *tail) text() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.end.Len() == 0 {
		return ""
	}
	return ", it said:\n" + strings.TrimRight(t.end.String(), "\n")
}
