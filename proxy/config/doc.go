// Package config reads gateway.yaml: what does it say, and does it hold together?
//
// Sections stand beside the code that they configure. This package gathers them, follows
// `include`, and checks what lies between sections. It also tells what differs between two
// configurations, for reloads.
package config
