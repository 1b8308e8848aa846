package streamer_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pay-theory/streamer/v2"
	"github.com/pay-theory/streamer/v2/progress"
)

// The handlers of this file have the shapes that the older system's guide taught: they must
// compile and run as they are, but for the import path.

type Database interface {
	QueryRange(ctx context.Context, from, to time.Time) ([]Record, error)
}

type S3Client interface {
	Upload(ctx context.Context, data []byte) (string, error)
}

type Record struct{ Line string }

type ExportParams struct {
	StartDate time.Time `json:"start_date"`
	EndDate   time.Time `json:"end_date"`
	Format    string    `json:"format"`
}

// DataExportHandler has an estimate, validation and progress, and no Process.
type DataExportHandler struct {
	db       Database
	s3Client S3Client
}

func (h *DataExportHandler) EstimatedDuration() time.Duration {
	return 5 * time.Minute
}

func (h *DataExportHandler) Validate(req *streamer.Request) error {
	var params ExportParams
	if err := json.Unmarshal(req.Payload, &params); err != nil {
		return streamer.NewError(streamer.ErrCodeValidation, "Invalid payload")
	}
	if params.StartDate.After(params.EndDate) {
		return streamer.NewError(streamer.ErrCodeValidation, "Invalid date range")
	}
	return nil
}

func (h *DataExportHandler) ProcessWithProgress(
	ctx context.Context,
	req *streamer.Request,
	reporter progress.Reporter,
) (*streamer.Result, error) {
	var params ExportParams
	json.Unmarshal(req.Payload, &params)

	reporter.Report(10, "Querying database...")
	data, err := h.db.QueryRange(ctx, params.StartDate, params.EndDate)
	if err != nil {
		return nil, err
	}

	var processedData []byte
	for i, record := range data {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		default:
			processedData = append(processedData, record.Line+"\n"...)
			percentage := float64(i+1) / float64(len(data)) * 80
			reporter.Report(percentage+10, fmt.Sprintf("Processed %d/%d records", i+1, len(data)))
		}
	}

	reporter.Report(90, "Uploading export file...")
	url, err := h.s3Client.Upload(ctx, processedData)
	if err != nil {
		return nil, err
	}

	return &streamer.Result{
		RequestID: req.ID,
		Success:   true,
		Data: map[string]interface{}{
			"export_url":    url,
			"total_records": len(data),
			"file_size":     len(processedData),
			"requested_by":  req.Metadata["user_id"],
		},
	}, nil
}

// SmartHandler has an estimate above the threshold and just Process.
type SmartHandler struct{}

func (h *SmartHandler) EstimatedDuration() time.Duration {
	return 10 * time.Second
}

func (h *SmartHandler) Process(ctx context.Context, req *streamer.Request) (*streamer.Result, error) {
	if string(req.Payload) == `"quick"` {
		return &streamer.Result{RequestID: req.ID, Success: true, Data: map[string]interface{}{"quick": true}}, nil
	}
	return nil, streamer.NewError(streamer.ErrCodeInternalError, "Use ProcessWithProgress for complex operations")
}

// BatchHandler has an estimate and progress.
type BatchHandler struct{}

func (h *BatchHandler) EstimatedDuration() time.Duration {
	return time.Minute
}

func (h *BatchHandler) ProcessWithProgress(ctx context.Context, req *streamer.Request, reporter progress.Reporter) (*streamer.Result, error) {
	var chunks [][]int
	if err := json.Unmarshal(req.Payload, &chunks); err != nil {
		return nil, err
	}
	results := make([]interface{}, 0, len(chunks))
	for i, chunk := range chunks {
		sum := 0
		for _, n := range chunk {
			sum += n
		}
		results = append(results, sum)
		percentage := float64(i+1) / float64(len(chunks)) * 100
		reporter.Report(percentage, fmt.Sprintf("Processed chunk %d/%d", i+1, len(chunks)))
	}
	return &streamer.Result{
		RequestID: req.ID,
		Success:   true,
		Data:      map[string]interface{}{"results": results},
	}, nil
}

// ExternalAPIHandler tries an external service itself, and asks for a retry when that is down.
type ExternalAPIHandler struct {
	call func(ctx context.Context, payload json.RawMessage) (string, error)
}

func (h *ExternalAPIHandler) EstimatedDuration() time.Duration {
	return 30 * time.Second
}

func (h *ExternalAPIHandler) ProcessWithProgress(ctx context.Context, req *streamer.Request, reporter progress.Reporter) (*streamer.Result, error) {
	reporter.Report(10, "Initiating external API call...")
	var result string
	for attempt := 1; attempt <= 3; attempt++ {
		resp, err := h.call(ctx, req.Payload)
		if err == nil {
			result = resp
			break
		}
		if attempt == 3 {
			return nil, streamer.NewError(streamer.ErrCodeRateLimited, "External service is busy").
				WithRetry(1 * time.Minute)
		}
		reporter.Report(20+float64(attempt)*10, fmt.Sprintf("Retrying... (attempt %d/3)", attempt+1))
		time.Sleep(time.Duration(attempt) * time.Second)
	}
	if err := reporter.SetMetadata("source", "external"); err != nil {
		return nil, err
	}
	reporter.Report(90, "Processing external API response...")
	return &streamer.Result{RequestID: req.ID, Success: true, Data: result}, nil
}

// Mocks as a user's tests have them: the reporter's has two methods and no more.

type MockProgressReporter struct{ messages []string }

func (m *MockProgressReporter) Report(percentage float64, message string) error {
	m.messages = append(m.messages, message)
	return nil
}

func (m *MockProgressReporter) SetMetadata(key string, value interface{}) error { return nil }

type MockDB struct{}

func (MockDB) QueryRange(context.Context, time.Time, time.Time) ([]Record, error) {
	return []Record{{"one"}, {"two"}}, nil
}

type MockS3 struct{}

func (MockS3) Upload(_ context.Context, data []byte) (string, error) {
	return fmt.Sprintf("https://files.example.com/%d", len(data)), nil
}

const exportPayload = `{"start_date":"2024-01-01T00:00:00Z","end_date":"2024-12-31T00:00:00Z","format":"csv"}`

func TestLegacyHandlersRunInUnitTestsWithTwoMethodMocks(t *testing.T) {
	t.Parallel()
	handler := &DataExportHandler{db: MockDB{}, s3Client: MockS3{}}
	req := &streamer.Request{ID: "test-123", Action: "export_data", Payload: []byte(exportPayload)}
	reporter := &MockProgressReporter{}

	require.NoError(t, handler.Validate(req))
	result, err := handler.ProcessWithProgress(t.Context(), req, reporter)

	require.NoError(t, err)
	require.True(t, result.Success)
	require.Contains(t, result.Data, "export_url")
	require.Equal(t, "Querying database...", reporter.messages[0])
}

func TestLegacyHandlersRunUnchanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		s := serve(t, func(router *streamer.Mux) {
			router.Handle("export_data", &DataExportHandler{db: MockDB{}, s3Client: MockS3{}})
			router.Handle("smart", &SmartHandler{})
			router.Handle("batch", &BatchHandler{})
			router.Handle("external", &ExternalAPIHandler{call: func(context.Context, json.RawMessage) (string, error) {
				if calls++; calls <= 4 {
					return "", errors.New("503")
				}
				return "fetched", nil
			}})
		})
		defer s.stop()

		s.submit("export_data", "export", exportPayload)
		end := s.end("export")
		require.Equal(t, progress.Completed, end.Kind)
		require.JSONEq(t, `{"export_url":"https://files.example.com/8","total_records":2,"file_size":8,"requested_by":"alice"}`, string(end.Data))

		_, err := s.Submit(t.Context(), alice, &streamer.Request{
			Action: "export_data", Payload: []byte(`{"start_date":"2024-12-31T00:00:00Z","end_date":"2024-01-01T00:00:00Z"}`),
		})
		require.Equal(t, streamer.ErrCodeValidation, code(t, err))
		require.ErrorContains(t, err, "Invalid date range")

		s.submit("smart", "quick", `"quick"`)
		require.JSONEq(t, `{"quick":true}`, string(s.end("quick").Data))
		s.submit("smart", "complex", `"complex"`)
		require.Equal(t, streamer.ErrCodeInternalError, s.end("complex").Error.Code)

		s.submit("batch", "batch", `[[1,2],[3,4],[5]]`)
		require.JSONEq(t, `{"results":[3,7,5]}`, string(s.end("batch").Data))
		v, err := s.Attach(t.Context(), alice, "batch")
		require.NoError(t, err)
		require.InDelta(t, 100, v.Page().Progress.Percentage, 0)
		require.Equal(t, "Processed chunk 3/3", v.Page().Progress.Message)

		began := time.Now()
		s.submit("external", "external", `{}`)
		events := s.events("external")
		require.Equal(t, "accepted started retrying started completed", kinds(events))
		require.Equal(t, time.Minute, events[2].Delay)
		require.GreaterOrEqual(t, time.Since(began), time.Minute)
		require.JSONEq(t, `"fetched"`, string(events[4].Data))
	})
}
