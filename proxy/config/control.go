package config

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"

	"sallyport/proxy/admin"
	"sallyport/proxy/setting"
)

// FindControlSocket finds the control socket of the gateway that serves the configuration file at
// path. Other faults of the file do not matter here: the gateway that is asked to reload it
// reports them all. The error is [setting.Faults] if the file cannot be read or gives no usable
// listen.control, and a plain one if the socket is off.
func FindControlSocket(path string) (string, error) {
	text, err := readFile(path)
	if err != nil {
		return "", setting.Faults{{File: path, Problem: err.Error(), Cure: "-c names another file, --socket the socket itself"}}
	}
	c := &Config{}
	doc, faults := setting.Decode(path, text, c)
	c.source = &source{main: doc, onDisk: true}
	if doc.Bad("listen.control") {
		return "", faults
	}
	var found setting.Faults
	c.checkControl(&found)
	if err := c.source.place(found).Err(); err != nil {
		return "", err
	}
	socket, _ := c.ControlSocket()
	if socket == "" {
		return "", errors.New("listen.control is off: there is no socket to ask at; send the gateway SIGHUP to reload it")
	}
	return socket, nil
}

// ControlSocket is the path of the control socket, "" if it is off. written reports whether the
// configuration names it; otherwise it is the default, the path of the configuration file with
// .sock in place of its ending. So two configurations in one folder have two sockets, and the
// commands find the right one by the configuration alone.
//
// A default that cannot be made (a read-only folder, a path that is too long) must not keep the
// gateway from starting; one that is written must.
func (c *Config) ControlSocket() (path string, written bool) {
	file := c.source.main.File
	switch {
	case c.Listen.Control == "" && !c.source.onDisk:
		return "", false // a text has no folder of its own
	case c.Listen.Control == "":
		return strings.TrimSuffix(file, filepath.Ext(file)) + ".sock", false
	case c.Listen.Control.Word() != "":
		return "", true
	}
	return string(c.Listen.Control), true
}

// checkControl records what cannot be the path of a socket.
func (c *Config) checkControl(f *setting.Faults) {
	c.Listen.Control.Check("listen.control", "write a path such as /run/sallyport/control.sock, or off", f, off)
	path, written := c.ControlSocket()
	if !written || path == "" {
		return
	}
	value := string(c.Listen.Control)
	if _, port, err := net.SplitHostPort(value); err == nil && !strings.ContainsAny(port, `/\`) {
		f.Add("listen.control", value, "an address, not the path of a socket", "write a path such as /run/sallyport/control.sock: the network must not reach it")
		return
	}
	if excess, most := admin.SocketPathExcess(path); excess > 0 {
		f.Add("listen.control", value, fmt.Sprintf("%d bytes too long for a unix socket, which may have %d, folder included", excess, most),
			"write a shorter path such as /run/sallyport/control.sock")
	}
}
