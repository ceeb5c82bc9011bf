package ports

import (
	"errors"
	"syscall"
	"time"

	"github.com/core-tools/hsu-master/supervisor/process/sockets"
)

// ReservePatience is how long a worker may leave a reserved port closed. After that, the reservation is released,
// for workers that cannot listen beside one and try again instead of exiting.
const ReservePatience = 2 * time.Second

// reservations keep other processes from taking the ports of workers while no worker listens on them: between the
// choice of a port and the worker's listen, and from a worker's end to the next start. If a port cannot be
// reserved, the worker runs without a reservation.
type reservations struct {
	byWorker map[string]reservation
	// lone are the units whose workers did not open a reserved port: their ports are reserved only until the start.
	lone map[string]bool
}

type reservation struct {
	port int
	*sockets.Reservation
}

// reserve reserves the port that the worker had, if it is not reserved already.
func (r *reservations) reserve(worker string, port int) {
	if r.byWorker[worker].port == port {
		return
	}
	if res, err := sockets.Reserve(port); err == nil {
		r.add(worker, port, res)
	}
}

// claim reserves a port that the worker has not had before, and reports whether the worker can have it.
func (r *reservations) claim(worker string, port int) bool {
	res, err := sockets.Claim(port)
	switch {
	case err == nil:
		r.add(worker, port, res)
		return true
	case errors.Is(err, syscall.EADDRINUSE):
		return false
	}
	return listenable(port) == nil // reservations are not possible here, or not now
}

func (r *reservations) add(worker string, port int, res *sockets.Reservation) {
	r.release(worker)
	if r.byWorker == nil {
		r.byWorker = make(map[string]reservation)
	}
	r.byWorker[worker] = reservation{port, res}
}

func (r *reservations) release(worker string) {
	if res, ok := r.byWorker[worker]; ok {
		_ = res.Close() // a socket without data
		delete(r.byWorker, worker)
	}
}

// refuse records that a worker of the unit did not open its port, and releases the port's reservation. It reports
// whether there was one.
func (r *reservations) refuse(unit, worker string) bool {
	if _, ok := r.byWorker[worker]; !ok {
		return false
	}
	r.release(worker)
	if r.lone == nil {
		r.lone = make(map[string]bool)
	}
	r.lone[unit] = true
	return true
}
