package stats

import "errors"

// Mean returns the arithmetic mean.
func Mean(values []float64) (float64, error) {
	if len(values) == 0 {
		return 0, errors.New("no values")
	}
	total := 0.0
	for _, v := range values {
		total += v
	}
	return total / float64(len(values)), nil
}
