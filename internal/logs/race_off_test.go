//go:build !race

package logs

const slower = 1
