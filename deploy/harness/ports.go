package harness

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
)

// Ports are taken below the range from which the kernel gives ports to outgoing
// connections, so that no connection can sit on the port of a member that is
// down for a moment.
const (
	portMin   = 20000
	portMax   = 32000
	portTries = 200
)

// freePorts returns the first of n consecutive ports that are free on loopback.
func freePorts(n int) (int, error) {
	for range portTries {
		first := portMin + rand.IntN(portMax-portMin-n)
		if allFree(first, n) {
			return first, nil
		}
	}
	return 0, fmt.Errorf("no %d consecutive free ports found in %d tries", n, portTries)
}

func allFree(first, n int) bool {
	for p := first; p < first+n; p++ {
		l, err := net.Listen("tcp", loopback(p))
		if err != nil {
			return false
		}
		l.Close()
	}
	return true
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
