package split

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// TableName is the file in the data directory that lists the processes.
const TableName = "processes.tsv"

// Row is one process of the table.
type Row struct {
	Name    string
	PID     int
	Address string
	Command []string
}

// ReadTable reads the table of a data directory; no table is no rows.
func ReadTable(dir string) ([]Row, error) {
	f, err := os.Open(filepath.Join(dir, TableName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var rows []Row
	scanner := bufio.NewScanner(f)
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		cells := strings.Split(scanner.Text(), "\t")
		if len(cells) != 4 {
			return nil, fmt.Errorf("%s: %q is not name, pid, address and command line", f.Name(), scanner.Text())
		}
		pid, err := strconv.Atoi(cells[1])
		if err != nil {
			return nil, fmt.Errorf("%s: pid of %s: %w", f.Name(), cells[0], err)
		}
		rows = append(rows, Row{Name: cells[0], PID: pid, Address: cells[2], Command: unquote(cells[3])})
	}
	return rows, scanner.Err()
}

// writeTable replaces the table at once, so that a reader never sees half.
func writeTable(dir string, rows []Row) error {
	var b strings.Builder
	for _, r := range rows {
		fmt.Fprintf(&b, "%s\t%d\t%s\t%s\n", r.Name, r.PID, r.Address, quote(r.Command))
	}
	path := filepath.Join(dir, TableName)
	if err := os.WriteFile(path+".new", []byte(b.String()), 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// quote makes a command line that a shell takes as it is.
func quote(args []string) string {
	quoted := make([]string, len(args))
	for i, a := range args {
		if a != "" && !strings.ContainsAny(a, " \t\n'\"\\$&|;<>()*?[]#~`{}!") {
			quoted[i] = a
			continue
		}
		quoted[i] = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
	}
	return strings.Join(quoted, " ")
}

// unquote is the inverse of quote.
func unquote(line string) []string {
	var args []string
	var arg strings.Builder
	open, quoted := false, false
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case c == '\'':
			quoted, open = !quoted, true
		case c == '\\' && !quoted && i+1 < len(line):
			i++
			arg.WriteByte(line[i])
		case c == ' ' && !quoted:
			if open {
				args = append(args, arg.String())
				arg.Reset()
			}
			open = false
		default:
			arg.WriteByte(c)
			open = true
		}
	}
	if open {
		args = append(args, arg.String())
	}
	return args
}

// addresses gives each name the address it had, or a free one.
type addresses struct {
	known map[string]string
	held  []net.Listener
}

func newAddresses(rows []Row) *addresses {
	a := &addresses{known: make(map[string]string)}
	for _, r := range rows {
		a.known[r.Name] = r.Address
	}
	return a
}

// of returns the address of a process on the loopback. A new one stays held
// until release, so that two processes do not get the same.
func (a *addresses) of(name string) (string, error) {
	if addr, ok := a.known[name]; ok {
		return addr, nil
	}
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	a.held = append(a.held, lis)
	a.known[name] = lis.Addr().String()
	return a.known[name], nil
}

func (a *addresses) release() {
	for _, lis := range a.held {
		lis.Close()
	}
	a.held = nil
}
