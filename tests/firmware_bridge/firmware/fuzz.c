/* libFuzzer: a board that hears anything, samples and is drained at any moment; what it says must be frames.
 *
 * Of the input the first bytes choose the board; then each operation is one byte and what it takes.
 */
#include <stdlib.h>
#include <string.h>

#include "edge_link.c"

static const char schema[] = "{\"channels\":[{\"name\":\"a\"},{\"name\":\"b\"},{\"name\":\"c\"}]}";
static uint32_t clock_us;

static uint32_t fuzz_now_us(void *context) {
    (void)context;
    return clock_us;
}

static edge_link_ack_status on_command(void *context, edge_link_request *request) {
    (void)context;
    if (request->command < EDGE_LINK_FIRST_OWN_COMMAND) {
        return EDGE_LINK_OK;
    }
    request->n_result_bytes = request->n_arguments_bytes < 16 ? (uint8_t)request->n_arguments_bytes : 16;
    for (uint8_t i = 0; i < request->n_result_bytes; i++) {
        request->result[i] = request->arguments[i];
    }
    return (edge_link_ack_status)(request->command & 7);
}

static volatile float sum;

static void on_prediction(void *context, const edge_link_prediction *prediction) {
    (void)context;
    for (uint8_t i = 0; i < prediction->n_values; i++) {
        sum = edge_link_value(prediction, i);
    }
}

static void demand(bool is_so) {
    if (!is_so) {
        abort();
    }
}

/* A receiver with room for every frame; it finds none of them bad. */
typedef struct {
    uint8_t code[2048];
    size_t n_bytes;
    uint32_t n_frames;
} host;

static void hear(host *h, const edge_link *board, uint8_t byte) {
    if (byte != 0) {
        demand(h->n_bytes < sizeof h->code);
        h->code[h->n_bytes++] = byte;
        return;
    }
    uint8_t body[2048];
    size_t n_body = 0, i = 0;
    while (i < h->n_bytes) {
        uint8_t run = h->code[i++];
        demand(i + run - 1 <= h->n_bytes);
        for (uint8_t k = 1; k < run; k++) {
            body[n_body++] = h->code[i++];
        }
        if (run < 0xFF && i < h->n_bytes) {
            body[n_body++] = 0;
        }
    }
    if (h->n_bytes > 0) {
        uint8_t kind = body[0] & 31;
        demand(n_body >= 10 && n_body <= EDGE_LINK_MAX_BODY_BYTES && body[0] >> 5 == 1);
        if (ends_in_crc32(kind)) {
            demand(edge_link_crc32(check_start(board, kind), body, n_body) == CRC32_RESIDUE);
        } else {
            demand(edge_link_crc16((uint16_t)check_start(board, kind), body, n_body) == CRC16_RESIDUE);
        }
        h->n_frames++;
    }
    h->n_bytes = 0;
}

/* Turn what the fuzzer made into a frame with a good check: it would not find one by itself. */
static void tell_frame(edge_link *link, const uint8_t *payload, size_t n_payload, uint8_t kind, uint8_t epoch) {
    uint8_t body[EDGE_LINK_RX_BODY_BYTES] = {(uint8_t)(1u << 5 | kind), epoch, kind, 7};
    size_t n_body = HEADER_BYTES + n_payload;
    copy(body + HEADER_BYTES, payload, n_payload);
    if (kind == EDGE_LINK_PREDICTION && n_payload >= 4 && n_payload % 4 == 0) {
        body[HEADER_BYTES + 3] = (uint8_t)(n_payload / 4 - 1);
    }
    uint16_t crc = (uint16_t)~edge_link_crc16(CRC16_START, body, n_body);
    body[n_body++] = (uint8_t)(crc >> 8);
    body[n_body++] = (uint8_t)crc;
    edge_link_receive(link, 0);
    for (size_t i = 0; i <= n_body;) {
        size_t run = 0;
        while (i + run < n_body && body[i + run] != 0) {
            run++;
        }
        edge_link_receive(link, (uint8_t)(run + 1)); /* bodies here are shorter than a full run */
        while (run--) {
            edge_link_receive(link, body[i++]);
        }
        i++;
    }
    edge_link_receive(link, 0);
}

/* Ask for what streams: four bytes say how. */
static void tell_start(edge_link *link, const uint8_t *how) {
    uint8_t request[7] = {how[0], EDGE_LINK_START, how[1], how[2], 0, 0, how[3]};
    tell_frame(link, request, sizeof request, EDGE_LINK_REQUEST, 0);
    edge_link_poll(link);
}

static void drain(edge_link *link, host *h, size_t n_most, bool is_in_blocks) {
    uint8_t byte;
    const uint8_t *start;
    for (size_t n = 0; !is_in_blocks && n < n_most && edge_link_transmit(link, &byte); n++) {
        hear(h, link, byte);
    }
    for (uint16_t n_block; is_in_blocks && (n_block = edge_link_transmit_block(link, &start)) > 0;) {
        for (uint16_t i = 0; i < n_block; i++) {
            hear(h, link, start[i]);
        }
        edge_link_transmitted(link, n_block);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_data);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_data) {
    if (n_data < 6) {
        return 0;
    }
    /* Memory of exactly the promised sizes, so that a byte too far is seen. */
    uint16_t n_tx = (uint16_t)(128u << data[0] % 6), n_rx = (uint16_t)(16u << data[1] % 6);
    uint16_t n_sample = (uint16_t)(1 + data[2] % 100), n_batch = (uint16_t)(n_sample * (data[3] % 16));
    uint8_t *tx = malloc(n_tx), *rx = malloc(n_rx), *batch = n_batch ? malloc(n_batch) : NULL;
    uint8_t *sample = malloc(n_sample);
    memset(sample, 0x55, n_sample); /* longer than a COBS block without a zero, when many share a frame */
    edge_link link;
    host h = {{0}, 0, 0};
    clock_us = (uint32_t)data[4] << 24;
    edge_link_config config = {.schema = schema,
                               .n_schema_bytes = sizeof schema - 1,
                               .n_sample_bytes = n_sample,
                               .boot_id = data[5],
                               .max_late_us = data[5] & 1 ? 700 : 0,
                               .tx = tx,
                               .n_tx_bytes = n_tx,
                               .rx = rx,
                               .n_rx_bytes = n_rx,
                               .batch = batch,
                               .n_batch_bytes = n_batch,
                               .now_us = fuzz_now_us,
                               .on_command = data[5] & 2 ? on_command : NULL,
                               .on_prediction = on_prediction};
    demand(edge_link_init(&link, &config));
    data += 6;
    n_data -= 6;
    while (n_data-- > 0) {
        uint8_t operation = *data++;
        size_t n_taken = operation >> 3 < n_data ? operation >> 3 : n_data;
        uint32_t t_us;
        switch (operation & 7) {
        case 0:
            for (size_t i = 0; i < n_taken; i++) {
                edge_link_receive(&link, data[i]);
            }
            break;
        case 1:
            tell_frame(&link, data, n_taken, (uint8_t)(n_data ? data[0] & 31 : 16), link.epoch);
            break;
        case 2:
            edge_link_poll(&link);
            n_taken = 0;
            break;
        case 3:
            clock_us += (uint32_t)(operation >> 3) * (operation >> 3) * 1000u;
            n_taken = 0;
            break;
        case 4:
            while (edge_link_sample_due(&link, &t_us) && edge_link_sample(&link, t_us, sample)) {
            }
            n_taken = 0;
            break;
        case 5:
            edge_link_sample(&link, clock_us, sample);
            n_taken = 0;
            break;
        case 6:
            n_taken = n_data < 4 ? 0 : 4;
            if (n_taken == 4 && operation & 8) {
                tell_start(&link, data);
            } else {
                edge_link_log(&link, 6, "brown-out");
                edge_link_set_sensor_fault(&link, operation & 16);
            }
            break;
        default:
            drain(&link, &h, 64u + operation, operation & 8);
            n_taken = 0;
        }
        data += n_taken;
        n_data -= n_taken;
        demand((uint16_t)(link.tx_head - link.tx_tail) <= n_tx);
        demand(link.n_dropped <= link.n_samples && link.n_missed <= link.n_samples);
    }
    drain(&link, &h, 0, true);
    demand(h.n_bytes == 0);
    free(tx);
    free(rx);
    free(batch);
    free(sample);
    return 0;
}
