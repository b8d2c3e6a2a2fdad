package proxy

import (
	"context"

	"sallyport/proxy/admin"
	"sallyport/proxy/config"
)

// These are the answers of a running gateway's control socket.
type (
	// ReloadReport describes the result of a reload.
	ReloadReport = admin.ReloadReport
	// StatusReport describes the state of a gateway.
	StatusReport = admin.StatusReport
	// ControlError means that no gateway answered at the control socket, usually because none runs.
	ControlError = admin.ControlError
)

// These are the results of a reload, as in [ReloadReport].
const (
	ReloadChanged   = admin.ReloadChanged
	ReloadUnchanged = admin.ReloadUnchanged
	ReloadRefused   = admin.ReloadRefused
)

// Reload tells the gateway at a control socket to reload its configuration, and waits for the
// result. A refused configuration is not an error: the report describes it.
func Reload(ctx context.Context, socket string) (ReloadReport, error) {
	return admin.DialControl(socket).Reload(ctx)
}

// Status returns the state of the gateway at a control socket.
func Status(ctx context.Context, socket string) (StatusReport, error) {
	return admin.DialControl(socket).Status(ctx)
}

// ControlSocket finds the control socket of the gateway that serves the configuration file
// at path; see [config.FindControlSocket].
func ControlSocket(path string) (string, error) { return config.FindControlSocket(path) }
