package proxy

import (
	"context"

	"sallyport/proxy/admin"
	"sallyport/proxy/config"
)

// What a running gateway answers at its control socket.
type (
	// ReloadReport tells what a reload did.
	ReloadReport = admin.ReloadReport
	// StatusReport tells how a gateway is doing.
	StatusReport = admin.StatusReport
	// ControlError means that a gateway could not be asked: most often there is none.
	ControlError = admin.ControlError
)

// Results of a reload, as in [ReloadReport].
const (
	ReloadChanged   = admin.ReloadChanged
	ReloadUnchanged = admin.ReloadUnchanged
	ReloadRefused   = admin.ReloadRefused
)

// Reload asks the gateway at a control socket to load its configuration again, and waits until it
// has. That the configuration is refused is no error: the report says so.
func Reload(ctx context.Context, socket string) (ReloadReport, error) {
	return admin.DialControl(socket).Reload(ctx)
}

// Status asks the gateway at a control socket how it is doing.
func Status(ctx context.Context, socket string) (StatusReport, error) {
	return admin.DialControl(socket).Status(ctx)
}

// ControlSocket finds the control socket of the gateway that serves the configuration file
// at path; see [config.FindControlSocket].
func ControlSocket(path string) (string, error) { return config.FindControlSocket(path) }
