package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"

	"github.com/core-tools/hsu-master/api/proto"
	"github.com/core-tools/hsu-master/e2e/testdata/echo"
)

// moduleID is the module of the habit module.
const moduleID = "echo-module"

// serveModule is a unit of HSU's newest generation: it ignores --port, listens on a port of its own choice, publishes
// it, and fails if there is no registry. It has neither CoreService nor reflection.
func serveModule(o options) error {
	var last net.Listener
	for address := range strings.SplitSeq(o.listen, ",") {
		l, err := net.Listen("tcp", address)
		if err != nil {
			return err
		}
		last = l
	}
	served := &business{born: rand.Text()}
	srv := grpc.NewServer()
	proto.RegisterMyBusinessServiceServer(srv, served)
	echo.Register(srv, served.Echo)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	if o.registry != "" {
		if err := o.publish(last.Addr().(*net.TCPAddr).Port); err != nil {
			return err
		}
	}
	go func() {
		<-signals
		if o.registry != "" {
			fmt.Println("unpublished:", o.ask(http.MethodDelete,
				fmt.Sprintf("unpublish/%s?processID=%d", moduleID, os.Getpid()), ""))
		}
		srv.GracefulStop()
	}()
	fmt.Println("serving")
	return srv.Serve(last)
}

// publish publishes the module with the keys of HSU's client in Go.
func (o options) publish(port int) error {
	return o.ask(http.MethodPost, "publish", fmt.Sprintf(
		`{"ModuleID":%q,"ProcessID":%d,"APIs":[{"ServiceIDs":["echo"],"ServerPort":%d,"Protocol":"grpc"}]}`,
		moduleID, os.Getpid(), port))
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
		context.Background(), method, "http://localhost/api/v1/"+path, bytes.NewReader([]byte(body)))
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
