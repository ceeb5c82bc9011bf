package services_test

import (
	"errors"
	"fmt"

	"github.com/core-tools/hsu-master/internal/fair"
	"github.com/core-tools/hsu-master/supervisor/services"
)

// A call picks an endpoint and reports its outcome. While no endpoint is ready, the service is known and a call may
// wait for one.
func Example() {
	registry := services.New(services.Options{})
	registry.Offer(services.OfUnit("echo"), "demo.Echo")
	echo, caller := registry.Service("demo.Echo"), fair.Client{Peer: "10.0.0.1"}
	_, err := echo.Pick(caller, "")
	fmt.Println(errors.Is(err, services.ErrNotReady))

	registry.Add(&services.Endpoint{Address: "127.0.0.1:40001", Worker: "echo-0"}, "demo.Echo")
	pick, err := echo.Pick(caller, "")
	fmt.Println(pick.Endpoint().Key(), err)
	pick.End(services.Outcome{Code: 0})
	fmt.Println(echo.Info().InFlight, "in flight")
	// Output:
	// true
	// echo-0 <nil>
	// 0 in flight
}
