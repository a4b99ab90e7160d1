#include "edge_link.h"

enum { HEADER_BYTES = 8, CRC16_BYTES = 2, CRC32_BYTES = 4, MAX_SCHEMA_PART_BYTES = 200, FRAME_OVERHEAD_BYTES = 24 };

/* No enum: an int may have 16 bits. */
#define STATUS_US 1000000ul
#define SILENCE_US 3000000ul
#define MAX_PERIOD_US 600000000ul
#define CRC16_START 0xFFFFu
#define CRC16_RESIDUE 0x1D0Fu /* not 0: then a zero byte too many goes unseen */
#define CRC32_RESIDUE 0x2144DF1Cul

/* Bytes. */

static void copy(uint8_t *to, const uint8_t *from, size_t n_bytes) {
    while (n_bytes--) {
        *to++ = *from++;
    }
}

static void clear(void *memory, size_t n_bytes) {
    volatile uint8_t *to = memory; /* or the compiler calls memset */
    while (n_bytes--) {
        *to++ = 0;
    }
}

static uint16_t u16(uint8_t low, uint8_t high) { return (uint16_t)(low | (uint16_t)high << 8); }

static uint32_t u32(uint16_t low, uint16_t high) { return low | (uint32_t)high << 16; }

static uint16_t get_u16(const uint8_t *from) { return u16(from[0], from[1]); }

static uint32_t get_u32(const uint8_t *from) { return u32(get_u16(from), get_u16(from + 2)); }

static void put_u32(uint8_t *to, uint32_t value) {
    for (int i = 0; i < 4; i++) {
        *to++ = (uint8_t)value;
        value >>= 8;
    }
}

/* Checks: half a byte at a time, from tables of 32 and 64 bytes. */

static uint16_t crc16_byte(uint16_t crc, uint8_t byte) {
    static const uint16_t table[16] = {0x0000, 0x1021, 0x2042, 0x3063, 0x4084, 0x50A5, 0x60C6, 0x70E7,
                                       0x8108, 0x9129, 0xA14A, 0xB16B, 0xC18C, 0xD1AD, 0xE1CE, 0xF1EF};
    crc = (uint16_t)((uint32_t)crc << 4 ^ table[(crc >> 12 ^ byte >> 4) & 15]);
    return (uint16_t)((uint32_t)crc << 4 ^ table[(crc >> 12 ^ byte) & 15]);
}

static uint32_t crc32_byte(uint32_t crc, uint8_t byte) {
    static const uint32_t table[16] = {0x00000000, 0x1DB71064, 0x3B6E20C8, 0x26D930AC, 0x76DC4190, 0x6B6B51F4,
                                       0x4DB26158, 0x5005713C, 0xEDB88320, 0xF00F9344, 0xD6D6A3E8, 0xCB61B38C,
                                       0x9B64C2B0, 0x86D3D2D4, 0xA00AE278, 0xBDBDF21C};
    crc ^= byte;
    crc = crc >> 4 ^ table[crc & 15];
    return crc >> 4 ^ table[crc & 15];
}

uint16_t edge_link_crc16(uint16_t crc, const uint8_t *bytes, size_t n_bytes) {
    while (n_bytes--) {
        crc = crc16_byte(crc, *bytes++);
    }
    return crc;
}

uint32_t edge_link_crc32(uint32_t crc, const uint8_t *bytes, size_t n_bytes) {
    crc = ~crc;
    while (n_bytes--) {
        crc = crc32_byte(crc, *bytes++);
    }
    return ~crc;
}

static bool ends_in_crc32(uint8_t kind) { return kind == EDGE_LINK_BATCH || kind == EDGE_LINK_SCHEMA; }

/* The schema comes first in the check of samples: other channels are never taken for these. */
static uint32_t check_start(const edge_link *link, uint8_t kind) {
    if (ends_in_crc32(kind)) {
        return kind == EDGE_LINK_BATCH ? link->schema_crc32 : 0;
    }
    return kind == EDGE_LINK_DATA ? link->schema_crc16 : CRC16_START;
}

/* Frames to the host: written straight into the ring, and the transmitter's only once they are whole. */

static void write_raw(edge_link *link, uint8_t byte) {
    if ((uint16_t)(link->writer - link->tx_tail) >= link->config->n_tx_bytes) {
        link->is_full = true;
        return;
    }
    volatile uint8_t *tx = link->config->tx;
    tx[link->writer & (link->config->n_tx_bytes - 1u)] = byte;
    link->writer++;
}

static void open_run(edge_link *link) {
    link->code_at = link->writer;
    link->run = 1;
    write_raw(link, 0);
}

static void close_run(edge_link *link) {
    volatile uint8_t *tx = link->config->tx;
    if (!link->is_full) {
        tx[link->code_at & (link->config->n_tx_bytes - 1u)] = link->run;
    }
}

static void write_coded(edge_link *link, uint8_t byte) {
    if (link->run == 0xFF) { /* a full run stands for no zero, and ends only when another byte follows */
        close_run(link);
        open_run(link);
    }
    if (byte == 0) {
        close_run(link);
        open_run(link);
    } else {
        write_raw(link, byte);
        link->run++;
    }
}

static void write_bytes(edge_link *link, const void *bytes, size_t n_bytes) {
    const uint8_t *from = bytes;
    while (n_bytes--) {
        uint8_t byte = *from++;
        link->crc = link->is_long ? crc32_byte(link->crc, byte) : crc16_byte((uint16_t)link->crc, byte);
        write_coded(link, byte);
    }
}

static void write_u32(edge_link *link, uint32_t value) {
    uint8_t bytes[4];
    put_u32(bytes, value);
    write_bytes(link, bytes, sizeof bytes);
}

static void begin_frame(edge_link *link, edge_link_kind kind, uint16_t seq, uint32_t t_us) {
    link->writer = link->tx_head;
    link->is_full = false;
    link->is_long = ends_in_crc32((uint8_t)kind);
    link->crc = check_start(link, (uint8_t)kind);
    if (link->is_long) {
        link->crc = ~link->crc;
    }
    write_raw(link, 0);
    open_run(link);
    write_u32(link, u32(u16((uint8_t)(1u << 5 | kind), link->epoch), seq));
    write_u32(link, t_us);
}

static bool end_frame(edge_link *link) {
    uint32_t crc = ~link->crc;
    if (link->is_long) {
        for (int i = 0; i < CRC32_BYTES; i++) {
            write_coded(link, (uint8_t)(crc >> 8 * i));
        }
    } else {
        write_coded(link, (uint8_t)(crc >> 8));
        write_coded(link, (uint8_t)crc);
    }
    close_run(link);
    write_raw(link, 0);
    if (link->is_full) {
        return false;
    }
    link->tx_head = link->writer;
    uint16_t n_waiting = (uint16_t)(link->writer - link->tx_tail);
    if (n_waiting > link->ring_high_water_bytes) {
        link->ring_high_water_bytes = n_waiting;
    }
    return true;
}

static uint32_t now_us(const edge_link *link) { return link->config->now_us(link->config->context); }

static void send_words(edge_link *link, edge_link_kind kind, uint16_t seq, const uint32_t *words, int n_words) {
    begin_frame(link, kind, seq, now_us(link));
    while (n_words--) {
        write_u32(link, *words++);
    }
    end_frame(link);
}

uint16_t edge_link_transmit_block(edge_link *link, const uint8_t **start) {
    uint16_t n_waiting = (uint16_t)(link->tx_head - link->tx_tail);
    uint16_t at = (uint16_t)(link->tx_tail & (link->config->n_tx_bytes - 1u));
    uint16_t n_to_end = (uint16_t)(link->config->n_tx_bytes - at);
    *start = link->config->tx + at;
    return n_waiting < n_to_end ? n_waiting : n_to_end;
}

void edge_link_transmitted(edge_link *link, uint16_t n_bytes) {
    link->tx_tail = (uint16_t)(link->tx_tail + n_bytes);
}

bool edge_link_transmit(edge_link *link, uint8_t *byte) {
    if (link->tx_head == link->tx_tail) {
        return false;
    }
    volatile uint8_t *tx = link->config->tx;
    *byte = tx[link->tx_tail & (link->config->n_tx_bytes - 1u)];
    edge_link_transmitted(link, 1);
    return true;
}

/* Samples. */

static bool send_samples(edge_link *link, const void *values, uint8_t n_samples, uint16_t seq, uint32_t t_us) {
    size_t n_bytes = (size_t)n_samples * link->config->n_sample_bytes;
    bool is_data = n_samples == 1 && n_bytes <= EDGE_LINK_MAX_DATA_BYTES;
    begin_frame(link, is_data ? EDGE_LINK_DATA : EDGE_LINK_BATCH, seq, t_us);
    write_bytes(link, values, n_bytes);
    if (end_frame(link)) {
        return true;
    }
    link->n_dropped += n_samples;
    return false;
}

static bool flush_batch(edge_link *link) {
    uint8_t n_samples = link->n_in_batch;
    link->n_in_batch = 0;
    return !n_samples || send_samples(link, link->config->batch, n_samples, link->batch_seq, link->batch_t_us);
}

bool edge_link_sample(edge_link *link, uint32_t t_us, const void *values) {
    if (!link->is_streaming) {
        return false;
    }
    uint16_t seq = link->seq++;
    link->n_samples++;
    if (link->n_per_frame == 1) {
        return send_samples(link, values, 1, seq, t_us);
    }
    if (!link->n_in_batch) {
        link->batch_seq = seq;
        link->batch_t_us = t_us;
    }
    size_t n_bytes = link->config->n_sample_bytes;
    copy(link->config->batch + link->n_in_batch * n_bytes, values, n_bytes);
    return ++link->n_in_batch < link->n_per_frame || flush_batch(link);
}

static void skip_what_is_too_late(edge_link *link, uint32_t late_us) {
    if (link->config->max_late_us == 0 || late_us <= link->config->max_late_us) {
        return;
    }
    uint32_t n_late = late_us / link->period_us;
    n_late += late_us - n_late * link->period_us > link->config->max_late_us;
    flush_batch(link); /* samples that share a frame are consecutive */
    link->n_missed += n_late;
    link->n_samples += n_late;
    link->seq = (uint16_t)(link->seq + n_late);
    link->next_sample_us += n_late * link->period_us;
}

bool edge_link_sample_due(edge_link *link, uint32_t *t_us) {
    uint32_t late_us = now_us(link) - link->next_sample_us;
    if (!link->is_streaming || (int32_t)late_us < 0) {
        return false;
    }
    skip_what_is_too_late(link, late_us);
    *t_us = link->next_sample_us; /* the nominal instant: after a stall no sample carries a wrong time */
    if ((int32_t)(now_us(link) - *t_us) < 0) {
        return false;
    }
    link->next_sample_us += link->period_us;
    return true;
}

/* The most samples that can share a frame here: batch, body and ring must hold them. */
static uint8_t max_per_frame(const edge_link *link) {
    const edge_link_config *config = link->config;
    size_t n_room = EDGE_LINK_MAX_BODY_BYTES - HEADER_BYTES - CRC32_BYTES;
    size_t n_ring = (size_t)config->n_tx_bytes - FRAME_OVERHEAD_BYTES;
    n_room = config->n_batch_bytes < n_room ? config->n_batch_bytes : n_room;
    n_room = (n_ring < n_room ? n_ring : n_room) / config->n_sample_bytes;
    if (config->batch == NULL || n_room < 1) {
        return 1;
    }
    return (uint8_t)(n_room < 255 ? n_room : 255);
}

/* Requests. */

static edge_link_ack_status tell(edge_link *link, edge_link_request *request) {
    if (link->config->on_command != NULL) {
        return link->config->on_command(link->config->context, request);
    }
    if (request->command == EDGE_LINK_START || request->command == EDGE_LINK_STOP) {
        return EDGE_LINK_OK;
    }
    return request->command <= EDGE_LINK_SET ? EDGE_LINK_NOT_SUPPORTED : EDGE_LINK_UNKNOWN_COMMAND;
}

static edge_link_ack_status start(edge_link *link, edge_link_request *request) {
    if (request->n_arguments_bytes != 5) {
        return EDGE_LINK_BAD_ARGUMENT;
    }
    uint32_t period_us = get_u32(request->arguments);
    uint8_t n_per_frame = request->arguments[4];
    if (period_us == 0 || period_us > MAX_PERIOD_US || n_per_frame == 0) {
        return EDGE_LINK_BAD_ARGUMENT;
    }
    if (period_us < link->config->min_period_us) {
        return EDGE_LINK_RATE_TOO_HIGH;
    }
    edge_link_ack_status status = tell(link, request);
    if (status != EDGE_LINK_OK) {
        return status;
    }
    uint8_t n_most = max_per_frame(link);
    link->n_per_frame = n_per_frame < n_most ? n_per_frame : n_most;
    link->period_us = period_us;
    link->next_sample_us = now_us(link);
    link->epoch++;
    link->seq = 0;
    link->n_in_batch = 0;
    link->n_samples = link->n_dropped = link->n_missed = 0;
    link->is_streaming = true;
    put_u32(request->result, period_us);
    request->n_result_bytes = 4;
    return EDGE_LINK_OK;
}

static edge_link_ack_status act(edge_link *link, edge_link_request *request) {
    if (request->command == EDGE_LINK_START) {
        return start(link, request);
    }
    edge_link_ack_status status = tell(link, request);
    if (status == EDGE_LINK_OK && request->command == EDGE_LINK_STOP) {
        flush_batch(link);
        link->is_streaming = false;
    }
    link->wants_reset |= status == EDGE_LINK_OK && request->command == EDGE_LINK_RESET;
    return status;
}

/* Act once; the same number again means that the answer was lost, not the command. */
static void take_request(edge_link *link, const uint8_t *payload, uint16_t n_bytes) {
    if (n_bytes < 2 || payload[0] == 0) {
        return;
    }
    if (link->n_last_ack_bytes == 0 || link->last_ack[0] != payload[0]) {
        edge_link_request request;
        request.command = payload[1];
        request.arguments = payload + 2;
        request.n_arguments_bytes = (uint16_t)(n_bytes - 2u);
        request.n_result_bytes = 0;
        edge_link_ack_status status = act(link, &request);
        link->last_ack[0] = payload[0];
        link->last_ack[1] = payload[1];
        link->last_ack[2] = (uint8_t)status;
        link->last_ack[3] = 0;
        copy(link->last_ack + 4, request.result, request.n_result_bytes);
        link->n_last_ack_bytes = (uint8_t)(4 + request.n_result_bytes);
    }
    begin_frame(link, EDGE_LINK_ACK, 0, now_us(link));
    write_bytes(link, link->last_ack, link->n_last_ack_bytes);
    end_frame(link);
}

/* Questions, and what the model says. */

static void welcome(edge_link *link, const uint8_t *payload, uint16_t n_bytes) {
    if (n_bytes != 8) {
        return;
    }
    const edge_link_config *config = link->config;
    uint8_t common = payload[1] < EDGE_LINK_PROTO_MAX ? payload[1] : (uint8_t)EDGE_LINK_PROTO_MAX;
    bool is_common = common >= EDGE_LINK_PROTO_MIN && common >= payload[0];
    uint32_t answer[5] = {
        u32(u16(is_common ? common : 0, EDGE_LINK_PROTO_MIN), u16(EDGE_LINK_PROTO_MAX, config->reset_cause)),
        config->boot_id,
        link->schema_crc32,
        u32(config->n_schema_bytes, EDGE_LINK_RX_BODY_BYTES),
        get_u32(payload + 4),
    };
    link->n_last_ack_bytes = 0; /* another host may count its requests from where it likes */
    send_words(link, EDGE_LINK_WELCOME, 0, answer, 5);
}

static void send_schema(edge_link *link, const uint8_t *payload, uint16_t n_bytes) {
    if (n_bytes != 4 || get_u16(payload) >= link->config->n_schema_bytes) {
        return;
    }
    uint16_t offset = get_u16(payload), n_part = get_u16(payload + 2);
    uint16_t n_left = (uint16_t)(link->config->n_schema_bytes - offset);
    uint16_t n_room = (uint16_t)(link->config->n_tx_bytes - FRAME_OVERHEAD_BYTES);
    n_part = n_part < n_left ? n_part : n_left;
    n_part = n_part < n_room ? n_part : n_room;
    n_part = n_part < MAX_SCHEMA_PART_BYTES ? n_part : (uint16_t)MAX_SCHEMA_PART_BYTES;
    begin_frame(link, EDGE_LINK_SCHEMA, 0, now_us(link));
    write_bytes(link, payload, 2);
    write_bytes(link, link->config->schema + offset, n_part);
    end_frame(link);
}

static void pong(edge_link *link, const uint8_t *payload, uint16_t n_bytes, uint16_t seq) {
    if (n_bytes != 8) {
        return;
    }
    uint32_t answer[3] = {get_u32(payload), get_u32(payload + 4), link->heard_us};
    send_words(link, EDGE_LINK_PONG, seq, answer, 3);
}

static void take_prediction(edge_link *link, const uint8_t *payload, uint16_t n_bytes, uint8_t epoch) {
    if (n_bytes < 4 || n_bytes != 4u + 4u * payload[3] || !link->is_streaming || epoch != link->epoch) {
        return;
    }
    edge_link_prediction prediction = {get_u16(payload), payload[2], payload[3], payload + 4};
    link->n_predictions++;
    link->has_prediction_alarm = (prediction.flags & EDGE_LINK_HAS_ALARM) != 0;
    if (link->config->on_prediction != NULL) {
        link->config->on_prediction(link->config->context, &prediction);
    }
}

static void take_alarms(edge_link *link, const uint8_t *payload, uint16_t n_bytes) {
    if (n_bytes != 4) {
        return;
    }
    uint32_t before = link->alarms;
    link->alarms = get_u32(payload);
    link->has_prediction_alarm = link->alarms != 0;
    if (link->alarms != before && link->config->on_alarms != NULL) {
        link->config->on_alarms(link->config->context, link->alarms);
    }
}

float edge_link_value(const edge_link_prediction *prediction, uint8_t index) {
    union {
        uint32_t bits;
        float value;
    } output = {get_u32(prediction->values + 4u * index)};
    return output.value;
}

static void take_body(edge_link *link) {
    const uint8_t *body = link->body, *payload = body + HEADER_BYTES;
    uint8_t kind = body[0] & 31;
    uint16_t n_bytes = (uint16_t)(link->n_body_bytes - HEADER_BYTES - CRC16_BYTES);
    link->n_rx_good++;
    link->heard_us = now_us(link);
    link->is_heard = true;
    if (kind == EDGE_LINK_HELLO) {
        welcome(link, payload, n_bytes);
    } else if (kind == EDGE_LINK_READ_SCHEMA) {
        send_schema(link, payload, n_bytes);
    } else if (kind == EDGE_LINK_PING) {
        pong(link, payload, n_bytes, get_u16(body + 2));
    } else if (kind == EDGE_LINK_REQUEST) {
        take_request(link, payload, n_bytes);
    } else if (kind == EDGE_LINK_PREDICTION) {
        take_prediction(link, payload, n_bytes, body[1]);
    } else if (kind == EDGE_LINK_ALARM) {
        take_alarms(link, payload, n_bytes);
    }
}

/* Bytes of the host. */

void edge_link_receive(edge_link *link, uint8_t byte) {
    if ((uint16_t)(link->rx_head - link->rx_tail) >= link->config->n_rx_bytes) {
        link->n_rx_overrun = (uint16_t)(link->n_rx_overrun + 1u);
        return;
    }
    volatile uint8_t *rx = link->config->rx;
    rx[link->rx_head & (link->config->n_rx_bytes - 1u)] = byte;
    link->rx_head = (uint16_t)(link->rx_head + 1u);
}

static bool is_good(const edge_link *link) {
    const uint8_t *body = link->body;
    uint16_t n_bytes = link->n_body_bytes;
    if (link->is_overlong || link->step != 0 || n_bytes < HEADER_BYTES + CRC16_BYTES) {
        return false;
    }
    uint8_t kind = body[0] & 31;
    if (body[0] >> 5 != 1) {
        return false;
    }
    if (ends_in_crc32(kind)) {
        return n_bytes >= HEADER_BYTES + CRC32_BYTES &&
               edge_link_crc32(check_start(link, kind), body, n_bytes) == CRC32_RESIDUE;
    }
    return edge_link_crc16((uint16_t)check_start(link, kind), body, n_bytes) == CRC16_RESIDUE;
}

static void forget_body(edge_link *link) {
    link->n_body_bytes = 0;
    link->step = 0;
    link->block = 0xFF;
    link->is_begun = link->is_overlong = false;
}

static void store(edge_link *link, uint8_t byte) {
    if (link->n_body_bytes < EDGE_LINK_RX_BODY_BYTES) {
        link->body[link->n_body_bytes++] = byte;
    } else {
        link->is_overlong = true;
    }
}

static void take_byte(edge_link *link, uint8_t byte) {
    if (byte != 0) {
        if (link->step == 0) { /* a code: the zero that ended the block before it is now certain */
            if (link->block != 0xFF) {
                store(link, 0);
            }
            link->block = byte;
            link->step = (uint8_t)(byte - 1);
        } else {
            store(link, byte);
            link->step--;
        }
        link->is_begun = true;
    } else if (link->is_begun) {
        if (is_good(link)) {
            take_body(link);
        } else {
            link->n_rx_bad++;
        }
        forget_body(link);
    }
}

/* Being alive. */

static void send_status(edge_link *link) {
    uint8_t flags = (uint8_t)((link->is_streaming ? EDGE_LINK_STREAMING : 0) |
                              (link->is_faulty ? EDGE_LINK_SENSOR_FAULT : 0) |
                              (edge_link_alarm_is_lit(link) ? EDGE_LINK_ALARM_LIT : 0));
    uint32_t status[9] = {
        link->config->boot_id,
        link->uptime_s,
        link->n_samples,
        link->n_dropped,
        link->n_missed,
        u32(link->n_rx_bad, link->n_rx_overrun),
        u32(link->ring_high_water_bytes, u16(link->config->reset_cause, flags)),
        link->n_rx_good,
        link->n_predictions,
    };
    send_words(link, EDGE_LINK_STATUS, 0, status, 9);
}

void edge_link_poll(edge_link *link) {
    volatile uint8_t *rx = link->config->rx;
    while (link->rx_tail != link->rx_head) {
        uint8_t byte = rx[link->rx_tail & (link->config->n_rx_bytes - 1u)];
        link->rx_tail = (uint16_t)(link->rx_tail + 1u);
        take_byte(link, byte);
    }
    uint32_t now = now_us(link);
    if ((int32_t)(now - link->next_status_us) >= 0) {
        do {
            link->next_status_us += STATUS_US;
            link->uptime_s++;
        } while ((int32_t)(now - link->next_status_us) >= 0);
        send_status(link);
    }
    link->is_heard = link->is_heard && now - link->heard_us < SILENCE_US;
}

bool edge_link_log(edge_link *link, uint8_t level, const char *text) {
    begin_frame(link, EDGE_LINK_LOG, 0, now_us(link));
    write_bytes(link, &level, 1);
    for (int n_left = 200; n_left && *text; n_left--) {
        write_bytes(link, text++, 1);
    }
    return end_frame(link);
}

void edge_link_set_sensor_fault(edge_link *link, bool is_faulty) { link->is_faulty = is_faulty; }

bool edge_link_is_streaming(const edge_link *link) { return link->is_streaming; }

uint32_t edge_link_period_us(const edge_link *link) { return link->period_us; }

bool edge_link_host_is_alive(const edge_link *link) { return link->is_heard; }

bool edge_link_alarm_is_lit(const edge_link *link) { return link->has_prediction_alarm || link->alarms != 0; }

bool edge_link_reset_is_wanted(const edge_link *link) {
    return link->wants_reset && link->tx_head == link->tx_tail;
}

static bool is_power_of_two(uint16_t n, uint16_t n_least) { return n >= n_least && n <= 32768 && !(n & (n - 1)); }

bool edge_link_init(edge_link *link, const edge_link_config *config) {
    size_t n_most = EDGE_LINK_MAX_BODY_BYTES - HEADER_BYTES - CRC32_BYTES;
    if (!is_power_of_two(config->n_tx_bytes, EDGE_LINK_MIN_TX_BYTES) || !is_power_of_two(config->n_rx_bytes, 16)) {
        return false;
    }
    if (config->n_sample_bytes == 0 || config->n_sample_bytes > n_most || config->now_us == NULL ||
        config->n_sample_bytes > config->n_tx_bytes - FRAME_OVERHEAD_BYTES) {
        return false;
    }
    const uint8_t *schema = (const uint8_t *)config->schema;
    clear(link, sizeof *link);
    link->config = config;
    link->n_per_frame = 1;
    link->period_us = 1;
    link->schema_crc16 = edge_link_crc16(CRC16_START, schema, config->n_schema_bytes);
    link->schema_crc32 = edge_link_crc32(0, schema, config->n_schema_bytes);
    link->epoch = (uint8_t)(config->boot_id * 97); /* far from the epochs of the boot before */
    link->next_status_us = now_us(link) + STATUS_US;
    forget_body(link);
    uint32_t boot[2] = {
        config->boot_id,
        u32(u16(config->reset_cause, EDGE_LINK_PROTO_MIN), EDGE_LINK_PROTO_MAX),
    };
    send_words(link, EDGE_LINK_BOOT, 0, boot, 2);
    return true;
}
