/* The library as a shared object for Python: a board whose time passes when it is told to. */
#include <stdlib.h>
#include <string.h>

#include "edge_link.c"

typedef struct {
    edge_link link;
    edge_link_config config;
    uint32_t now_us;
    uint8_t tx[32768], rx[4096], batch[1012];
    char schema[8192];
    uint32_t n_alarm_calls, last_alarms, n_command_calls;
    uint8_t last_command, refusal, n_values;
    float values[255];
    uint16_t prediction_seq;
    uint8_t prediction_flags;
    uint8_t accepted[65536]; /* bodies, each behind its length */
    uint32_t n_accepted_bytes;
} board;

static uint32_t shim_now_us(void *context) { return ((board *)context)->now_us; }

static edge_link_ack_status on_command(void *context, edge_link_request *request) {
    board *b = context;
    b->n_command_calls++;
    b->last_command = request->command;
    if (b->refusal) {
        return (edge_link_ack_status)b->refusal;
    }
    if (request->command < EDGE_LINK_FIRST_OWN_COMMAND) {
        return request->command == EDGE_LINK_SET ? EDGE_LINK_NOT_SUPPORTED : EDGE_LINK_OK;
    }
    request->n_result_bytes = request->n_arguments_bytes < 16 ? (uint8_t)request->n_arguments_bytes : 16;
    memcpy(request->result, request->arguments, request->n_result_bytes); /* an echo */
    return request->command == EDGE_LINK_FIRST_OWN_COMMAND ? EDGE_LINK_OK : EDGE_LINK_UNKNOWN_COMMAND;
}

static void on_prediction(void *context, const edge_link_prediction *prediction) {
    board *b = context;
    b->prediction_seq = prediction->seq;
    b->prediction_flags = prediction->flags;
    b->n_values = prediction->n_values;
    for (uint8_t i = 0; i < prediction->n_values; i++) {
        b->values[i] = edge_link_value(prediction, i);
    }
}

static void on_alarms(void *context, uint32_t alarms) {
    board *b = context;
    b->n_alarm_calls++;
    b->last_alarms = alarms;
}

board *board_new(const uint8_t *schema, uint16_t n_schema_bytes, uint16_t n_sample_bytes, uint16_t n_tx_bytes) {
    board *b = calloc(1, sizeof *b);
    memcpy(b->schema, schema, n_schema_bytes);
    b->config = (edge_link_config){.schema = b->schema,
                                   .n_schema_bytes = n_schema_bytes,
                                   .n_sample_bytes = n_sample_bytes,
                                   .reset_cause = 3,
                                   .tx = b->tx,
                                   .n_tx_bytes = n_tx_bytes,
                                   .rx = b->rx,
                                   .n_rx_bytes = sizeof b->rx,
                                   .batch = b->batch,
                                   .n_batch_bytes = sizeof b->batch,
                                   .now_us = shim_now_us,
                                   .on_command = on_command,
                                   .on_prediction = on_prediction,
                                   .on_alarms = on_alarms,
                                   .context = b};
    return b;
}

void board_free(board *b) { free(b); }

bool board_boot(board *b, uint32_t boot_id, uint32_t now_us) {
    b->config.boot_id = boot_id;
    b->now_us = now_us;
    return edge_link_init(&b->link, &b->config);
}

void board_set_time(board *b, uint32_t now_us) { b->now_us = now_us; }
void board_set_limits(board *b, uint32_t min_period_us, uint32_t max_late_us) {
    b->config.min_period_us = min_period_us;
    b->config.max_late_us = max_late_us;
}
void board_refuse(board *b, uint8_t status) { b->refusal = status; }
void board_poll(board *b) { edge_link_poll(&b->link); }
bool board_sample(board *b, uint32_t t_us, const uint8_t *values) { return edge_link_sample(&b->link, t_us, values); }
bool board_sample_due(board *b, uint32_t *t_us) { return edge_link_sample_due(&b->link, t_us); }
bool board_log(board *b, uint8_t level, const char *text) { return edge_link_log(&b->link, level, text); }
void board_set_sensor_fault(board *b, bool is_faulty) { edge_link_set_sensor_fault(&b->link, is_faulty); }

void board_receive(board *b, const uint8_t *bytes, uint32_t n_bytes) {
    for (uint32_t i = 0; i < n_bytes; i++) {
        edge_link_receive(&b->link, bytes[i]);
    }
}

/* Past the ring and without effects: what the decoder accepts. */
void board_decode(board *b, const uint8_t *bytes, uint32_t n_bytes) {
    for (uint32_t i = 0; i < n_bytes; i++) {
        edge_link *link = &b->link;
        if (bytes[i] == 0 && link->is_begun && is_good(link)) {
            b->accepted[b->n_accepted_bytes] = (uint8_t)link->n_body_bytes;
            b->accepted[b->n_accepted_bytes + 1] = (uint8_t)(link->n_body_bytes >> 8);
            memcpy(b->accepted + b->n_accepted_bytes + 2, link->body, link->n_body_bytes);
            b->n_accepted_bytes += 2u + link->n_body_bytes;
            link->n_rx_good++;
            forget_body(link);
        } else {
            take_byte(link, bytes[i]);
        }
    }
}

const uint8_t *board_accepted(board *b, uint32_t *n_bytes) {
    *n_bytes = b->n_accepted_bytes;
    b->n_accepted_bytes = 0;
    return b->accepted;
}

uint32_t board_transmit(board *b, uint8_t *bytes, uint32_t n_most) {
    uint32_t n_bytes = 0;
    while (n_bytes < n_most && edge_link_transmit(&b->link, bytes + n_bytes)) {
        n_bytes++;
    }
    return n_bytes;
}

uint32_t board_transmit_blocks(board *b, uint8_t *bytes) {
    uint32_t n_bytes = 0;
    const uint8_t *start;
    uint16_t n_block;
    while ((n_block = edge_link_transmit_block(&b->link, &start)) > 0) {
        memcpy(bytes + n_bytes, start, n_block);
        edge_link_transmitted(&b->link, n_block);
        n_bytes += n_block;
    }
    return n_bytes;
}

/* A frame as it would leave the board, whatever its kind. */
bool board_encode(board *b, uint8_t kind, uint8_t epoch, uint16_t seq, uint32_t t_us, const uint8_t *payload,
                  uint32_t n_bytes) {
    b->link.epoch = epoch;
    begin_frame(&b->link, (edge_link_kind)kind, seq, t_us);
    write_bytes(&b->link, payload, n_bytes);
    return end_frame(&b->link);
}

bool board_is_streaming(board *b) { return edge_link_is_streaming(&b->link); }
uint32_t board_period_us(board *b) { return edge_link_period_us(&b->link); }
bool board_host_is_alive(board *b) { return edge_link_host_is_alive(&b->link); }
bool board_alarm_is_lit(board *b) { return edge_link_alarm_is_lit(&b->link); }
bool board_reset_is_wanted(board *b) { return edge_link_reset_is_wanted(&b->link); }
uint32_t board_n_rx_good(board *b) { return b->link.n_rx_good; }
uint32_t board_n_rx_bad(board *b) { return b->link.n_rx_bad; }
uint32_t board_n_rx_overrun(board *b) { return b->link.n_rx_overrun; }
uint32_t board_n_predictions(board *b) { return b->link.n_predictions; }
uint32_t board_n_missed(board *b) { return b->link.n_missed; }
uint32_t board_n_dropped(board *b) { return b->link.n_dropped; }
uint32_t board_n_samples(board *b) { return b->link.n_samples; }
uint32_t board_n_alarm_calls(board *b) { return b->n_alarm_calls; }
uint32_t board_n_command_calls(board *b) { return b->n_command_calls; }
uint32_t board_epoch(board *b) { return b->link.epoch; }
uint32_t board_alarms(board *b) { return b->link.alarms; }
uint32_t board_prediction_seq(board *b) { return b->prediction_seq; }
uint32_t board_prediction_flags(board *b) { return b->prediction_flags; }
const float *board_prediction(board *b, uint32_t *n_values) {
    *n_values = b->n_values;
    return b->values;
}
