package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// moduleID is the module of the habit module: a unit of HSU's newest generation. It ignores --port, listens on ports of
// its own choice, publishes the last one, and fails if there is no registry. It has neither CoreService nor reflection.
const moduleID = "echo-module"

// leavePort leaves the port of the habit module for the test.
func (o options) leavePort(port int) error {
	if o.record == "" {
		return nil
	}
	name := filepath.Join(o.record, "module."+os.Getenv("HSU_WORKER_TOKEN"))
	return os.WriteFile(name, []byte(strconv.Itoa(port)), 0o600)
}

// publish publishes the module with the keys of HSU's client in Go.
func (o options) publish(port int) error {
	for {
		err := o.ask(http.MethodPost, "publish", fmt.Sprintf(
			`{"ModuleID":%q,"ProcessID":%d,"APIs":[{"ServiceIDs":["echo"],"ServerPort":%d,"Protocol":"grpc"}]}`,
			moduleID, os.Getpid(), port))
		if err == nil || !o.patient {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (o options) unpublish() error {
	return o.ask(http.MethodDelete, fmt.Sprintf("unpublish/%s?processID=%d", moduleID, os.Getpid()), "")
}

// ask sends a request to the registry.
func (o options) ask(method, path, body string) error {
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", o.registry)
		},
	}}
	defer client.CloseIdleConnections()
	request, err := http.NewRequestWithContext(
		context.Background(), method, "http://localhost/api/v1/"+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	answer, err := io.ReadAll(response.Body)
	if response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", response.Status, answer)
	}
	return errors.Join(err, response.Body.Close())
}
