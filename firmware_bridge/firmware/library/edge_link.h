/* edge_link: the board's end of the framed protocol. C99, no malloc, no globals, nothing from libc.
 *
 * Bytes in, bytes out; the port and the timer stay yours:
 *
 *   receive interrupt    edge_link_receive(&link, byte);
 *   main loop            edge_link_poll(&link);
 *                        if (edge_link_sample_due(&link, &t_us)) edge_link_sample(&link, t_us, values);
 *   transmit interrupt   if (edge_link_transmit(&link, &byte)) UART = byte;
 *
 * One receiver and one transmitter may be interrupts; everything else belongs to one thread, which
 * runs on the same core as they do. No call blocks: a frame that finds no room is dropped whole and counted.
 */
#ifndef EDGE_LINK_H
#define EDGE_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The longest frame body taken from the host: 14 bytes and 4 for each output of the model. */
#ifndef EDGE_LINK_RX_BODY_BYTES
#define EDGE_LINK_RX_BODY_BYTES 128
#endif

enum { EDGE_LINK_PROTO_MIN = 1, EDGE_LINK_PROTO_MAX = 1 };
enum { EDGE_LINK_MAX_BODY_BYTES = 1024, EDGE_LINK_MAX_DATA_BYTES = 64, EDGE_LINK_MAX_RESULT_BYTES = 16 };
enum { EDGE_LINK_MIN_TX_BYTES = 128 };

typedef enum {
    EDGE_LINK_BOOT = 1,
    EDGE_LINK_DATA = 2,
    EDGE_LINK_BATCH = 3,
    EDGE_LINK_WELCOME = 4,
    EDGE_LINK_SCHEMA = 5,
    EDGE_LINK_PONG = 6,
    EDGE_LINK_STATUS = 7,
    EDGE_LINK_ACK = 8,
    EDGE_LINK_LOG = 9,
    EDGE_LINK_HELLO = 16,
    EDGE_LINK_READ_SCHEMA = 17,
    EDGE_LINK_PING = 18,
    EDGE_LINK_REQUEST = 19,
    EDGE_LINK_PREDICTION = 20,
    EDGE_LINK_ALARM = 21
} edge_link_kind;

typedef enum {
    EDGE_LINK_START = 1,
    EDGE_LINK_STOP = 2,
    EDGE_LINK_IDENTIFY = 3,
    EDGE_LINK_RESET = 4,
    EDGE_LINK_SET = 5,
    EDGE_LINK_FIRST_OWN_COMMAND = 128
} edge_link_command;

typedef enum {
    EDGE_LINK_OK = 0,
    EDGE_LINK_UNKNOWN_COMMAND = 1,
    EDGE_LINK_BAD_ARGUMENT = 2,
    EDGE_LINK_BUSY = 3,
    EDGE_LINK_RATE_TOO_HIGH = 4,
    EDGE_LINK_NOT_SUPPORTED = 5,
    EDGE_LINK_FAILED = 6
} edge_link_ack_status;

/* Flags of STATUS. */
enum { EDGE_LINK_STREAMING = 1, EDGE_LINK_SENSOR_FAULT = 2, EDGE_LINK_CLOCK_NOT_LOCKED = 4, EDGE_LINK_ALARM_LIT = 8 };

/* Flags of PREDICTION. */
enum { EDGE_LINK_WARMING_UP = 1, EDGE_LINK_HAS_ALARM = 2 };

/* What the model says of one sample of the stream that runs now. */
typedef struct {
    uint16_t seq;          /* of the sample */
    uint8_t flags;         /* EDGE_LINK_WARMING_UP, EDGE_LINK_HAS_ALARM */
    uint8_t n_values;
    const uint8_t *values; /* read with edge_link_value; gone when the callback returns */
} edge_link_prediction;

/* A command of the host, acted upon once however often it is asked. */
typedef struct {
    uint8_t command;
    const uint8_t *arguments;
    uint16_t n_arguments_bytes;
    uint8_t result[EDGE_LINK_MAX_RESULT_BYTES]; /* for the host */
    uint8_t n_result_bytes;
} edge_link_request;

/* What a board is; must outlive the link, and may stand in flash. */
typedef struct {
    const char *schema; /* JSON; the exact bytes enter the check of every sample */
    uint16_t n_schema_bytes;
    uint16_t n_sample_bytes; /* of the values of one sample: 1 to 1012 */
    uint32_t boot_id;        /* new at every boot: a counter that outlives a reset, or true random */
    uint8_t reset_cause;     /* yours; shown to people */
    uint32_t min_period_us;  /* START below it is refused; 0 counts as 1 */
    uint32_t max_late_us;    /* a sample later than this is skipped as missed; 0: always caught up with */
    uint8_t *tx;             /* ring to the host; power of two, EDGE_LINK_MIN_TX_BYTES to 32768 */
    uint16_t n_tx_bytes;
    uint8_t *rx; /* ring from the host; power of two, 16 to 32768 */
    uint16_t n_rx_bytes;
    uint8_t *batch; /* samples that wait to share a frame; NULL: each goes at once */
    uint16_t n_batch_bytes;
    uint32_t (*now_us)(void *context); /* free-running timer, wraps at 2^32; never a count of interrupts */
    /* Each may be NULL. START and STOP are told as well: what is not EDGE_LINK_OK refuses them. */
    edge_link_ack_status (*on_command)(void *context, edge_link_request *request);
    void (*on_prediction)(void *context, const edge_link_prediction *prediction);
    void (*on_alarms)(void *context, uint32_t alarms); /* bit i: alert i of the model is active */
    void *context;
} edge_link_config;

/* The members are the library's own; the counters may be read. */
typedef struct {
    const edge_link_config *config;
    uint32_t n_samples;     /* since START: numbered, sent or not */
    uint32_t n_dropped;     /* of them: found no room in the ring */
    uint32_t n_missed;      /* of them: too late to be sampled */
    uint32_t n_rx_good;     /* frames of the host since boot */
    uint32_t n_predictions; /* of them: predictions for the stream that ran */
    uint16_t n_rx_bad;
    volatile uint16_t n_rx_overrun;
    uint16_t ring_high_water_bytes;

    uint32_t alarms;
    uint32_t period_us, next_sample_us, next_status_us, second_us, uptime_s, heard_us, batch_t_us;
    uint32_t crc, schema_crc32;
    uint16_t schema_crc16;
    uint16_t seq, batch_seq;
    uint16_t writer, code_at; /* of the frame that is being written */
    volatile uint16_t tx_head, tx_tail, rx_head, rx_tail;
    uint8_t run;
    uint8_t epoch, n_per_frame, n_in_batch;
    bool is_long, is_full, is_streaming, is_faulty, is_heard, has_prediction_alarm, wants_reset;
    uint8_t last_ack[4 + EDGE_LINK_MAX_RESULT_BYTES];
    uint8_t n_last_ack_bytes;
    uint8_t body[EDGE_LINK_RX_BODY_BYTES]; /* what arrives, decoded */
    uint16_t n_body_bytes;
    uint8_t step, block; /* bytes left of the COBS block, and its code */
    bool is_begun, is_overlong;
} edge_link;

/* Begin, and say BOOT. False: the configuration makes no sense. */
bool edge_link_init(edge_link *link, const edge_link_config *config);

/* Take one byte from the host. */
void edge_link_receive(edge_link *link, uint8_t byte);

/* Give the next byte for the host; false: there is none. */
bool edge_link_transmit(edge_link *link, uint8_t *byte);

/* The same for DMA: bytes that can be sent from *start in one piece, and how many of them went. */
uint16_t edge_link_transmit_block(edge_link *link, const uint8_t **start);
void edge_link_transmitted(edge_link *link, uint16_t n_bytes);

/* Answer what arrived and say what is due; to be called often, and at least every second. */
void edge_link_poll(edge_link *link);

/* True: take a sample for the instant *t_us and give it to edge_link_sample. Boards whose sensor
 * keeps the time give each sample its own time and need no call of this. */
bool edge_link_sample_due(edge_link *link, uint32_t *t_us);

/* Send a sample; its number is used up even if it finds no room. False: dropped, or nobody asked. */
bool edge_link_sample(edge_link *link, uint32_t t_us, const void *values);

/* Send a line for people; level as in syslog: 3 error, 4 warning, 6 information. */
bool edge_link_log(edge_link *link, uint8_t level, const char *text);

/* Show in STATUS that the sensor does not answer, or does again. */
void edge_link_set_sensor_fault(edge_link *link, bool is_faulty);

/* Whether the host wants samples, and how far apart. */
bool edge_link_is_streaming(const edge_link *link);
uint32_t edge_link_period_us(const edge_link *link);

/* Whether the host was heard within three seconds; without it an alarm is old news. */
bool edge_link_host_is_alive(const edge_link *link);

/* Whether an alert of the model is active. */
bool edge_link_alarm_is_lit(const edge_link *link);

/* True once the host asked for a reset and knows that it was understood. */
bool edge_link_reset_is_wanted(const edge_link *link);

/* Output number index of a prediction. */
float edge_link_value(const edge_link_prediction *prediction, uint8_t index);

/* The checks of the protocol, for tests and boot loaders. */
uint16_t edge_link_crc16(uint16_t crc, const uint8_t *bytes, size_t n_bytes);
uint32_t edge_link_crc32(uint32_t crc, const uint8_t *bytes, size_t n_bytes);

#ifdef __cplusplus
}
#endif

#endif
