//go:build !(linux || darwin)

package natsembed_test

import "errors"

func limitFiles(uint64) (func() error, error) {
	return nil, errors.New("this test needs a limit on the size of files, which this operating system has not")
}
