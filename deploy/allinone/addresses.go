package allinone

import (
	"fmt"
	"net"
	"strconv"
)

// ClientAddresses are n addresses for gateways: first, and the same host with
// the ports that follow.
func ClientAddresses(first string, n int) ([]string, error) {
	host, port, err := net.SplitHostPort(first)
	if err != nil {
		return nil, err
	}
	p, err := strconv.Atoi(port)
	if err != nil || p < 1 || p+n-1 > 65535 {
		return nil, fmt.Errorf("port %q has no room for %d gateways", port, n)
	}
	addrs := make([]string, n)
	for i := range addrs {
		addrs[i] = net.JoinHostPort(host, strconv.Itoa(p+i))
	}
	return addrs, nil
}
