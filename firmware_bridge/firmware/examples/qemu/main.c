/* A sensor board without hardware: Arm's MPS2 with a Cortex-M3, as QEMU's machine mps2-an385 plays it.
 *
 * It samples triangle waves, streams them, and lights LED 0 (bit 0 of the register at 0x40028000)
 * while the model that reads them has an active alert.
 */
#include "edge_link.h"
#include "schema.h"

#define REGISTER(address) (*(volatile uint32_t *)(address))
#define UART_DATA REGISTER(0x40004000)
#define UART_STATE REGISTER(0x40004004)
#define UART_CONTROL REGISTER(0x40004008)
#define UART_CLEAR REGISTER(0x4000400C)
#define UART_DIVIDER REGISTER(0x40004010)
#define TIMER_LOAD REGISTER(0x40002000)
#define TIMER_VALUE REGISTER(0x40002004)
#define TIMER_CONTROL REGISTER(0x40002008)
#define LEDS REGISTER(0x40028000)
#define TICK_CONTROL REGISTER(0xE000E010)
#define TICK_RELOAD REGISTER(0xE000E014)
#define TICK_VALUE REGISTER(0xE000E018)
#define INTERRUPT_ENABLE REGISTER(0xE000E100)
#define INTERRUPT_DISABLE REGISTER(0xE000E180)
#define INTERRUPT_CALL REGISTER(0xE000E200)
#define RESET_CONTROL REGISTER(0xE000ED0C)

enum { CPU_MHZ = 25, BAUD = 921600, TICK_US = 250 };
enum { UART_TX_FULL = 1, UART_RX_FULL = 2, UART_ENABLE = 1 + 2, UART_INTERRUPTS = 4 + 8 };
enum { UART_TX_PENDING = 1, UART_RX_PENDING = 2, RX_INTERRUPT = 1 << 0, TX_INTERRUPT = 1 << 1 };
enum { TIMER_ENABLE = 1 << 7, TIMER_32_BIT = 1 << 1 };
enum { LED_ALARM = 1 << 0, LED_IDENTIFY = 1 << 1 };
enum { RESET_NOW = 0x05FA0004, BY_SOFTWARE = 3, POWER_ON = 1 };
enum { COMMAND_CRASH_AT = EDGE_LINK_FIRST_OWN_COMMAND }; /* u32: reset in the middle of that sample's frame */

void uart_receive_handler(void);
void uart_transmit_handler(void);

/* Outlives a reset. The timer alone is no boot id: read at the same point of every boot it repeats. */
#define KEPT_MAGIC 0x45444745u
static struct {
    uint32_t magic, n_boots;
} kept __attribute__((section(".kept")));

static edge_link board;
static uint8_t tx[32768]; /* a second at 1 kHz: QEMU passes its bytes on one by one, and may have to wait */
static uint8_t rx[1024], batch[1000];
static uint32_t crash_at = UINT32_MAX;
static uint64_t identify_until_us;
static uint64_t n_ticks;
static uint32_t last_count;

static uint64_t now_64_us(void) {
    uint32_t count = UINT32_MAX - TIMER_VALUE;
    n_ticks += (uint32_t)(count - last_count);
    last_count = count;
    return n_ticks / CPU_MHZ;
}

static uint32_t now_us(void *context) {
    (void)context;
    return (uint32_t)now_64_us();
}

void uart_receive_handler(void) {
    UART_CLEAR = UART_RX_PENDING;
    while (UART_STATE & UART_RX_FULL) {
        edge_link_receive(&board, (uint8_t)UART_DATA);
    }
}

/* Called when the UART has room again, and by transmit: nobody waits for a UART that is full. */
void uart_transmit_handler(void) {
    UART_CLEAR = UART_TX_PENDING;
    uint8_t byte;
    while (!(UART_STATE & UART_TX_FULL) && edge_link_transmit(&board, &byte)) {
        UART_DATA = byte;
    }
}

static void transmit(void) { INTERRUPT_CALL = TX_INTERRUPT; }

static edge_link_ack_status on_command(void *context, edge_link_request *request) {
    (void)context;
    switch (request->command) {
    case EDGE_LINK_START:
    case EDGE_LINK_STOP:
    case EDGE_LINK_RESET:
        return EDGE_LINK_OK;
    case EDGE_LINK_IDENTIFY:
        identify_until_us = now_64_us() + 1000000u * (request->n_arguments_bytes ? request->arguments[0] : 5u);
        return EDGE_LINK_OK;
    case COMMAND_CRASH_AT:
        if (request->n_arguments_bytes != 4) {
            return EDGE_LINK_BAD_ARGUMENT;
        }
        crash_at = (uint32_t)request->arguments[0] | (uint32_t)request->arguments[1] << 8 |
                   (uint32_t)request->arguments[2] << 16 | (uint32_t)request->arguments[3] << 24;
        return EDGE_LINK_OK;
    default:
        return request->command < EDGE_LINK_FIRST_OWN_COMMAND ? EDGE_LINK_NOT_SUPPORTED : EDGE_LINK_UNKNOWN_COMMAND;
    }
}

/* Everything the model says of alerts ends in one light; what a real board does is its own business. */
static void show_lights(void) {
    bool has_alarm = edge_link_alarm_is_lit(&board) && edge_link_host_is_alive(&board);
    LEDS = (has_alarm ? (uint32_t)LED_ALARM : 0) | (now_64_us() < identify_until_us ? (uint32_t)LED_IDENTIFY : 0);
}

/* Stands for reading a sensor: each channel a triangle, of another frequency, from the sample's number. */
static void read_sensor(edge_link_raw_value values[EDGE_LINK_N_CHANNELS], uint32_t number) {
    for (uint32_t i = 0; i < EDGE_LINK_N_CHANNELS; i++) {
        uint32_t phase = number * (i + 1) & 0x3FF;
        int32_t height = (int32_t)(phase < 512 ? phase : 1023 - phase);
        values[i] = (edge_link_raw_value)(height * 64 - 16384);
    }
}

static void crash_in_mid_frame(void) {
    INTERRUPT_DISABLE = TX_INTERRUPT;
    for (uint32_t i = 0x10; i < 0x1B; i++) {
        while (UART_STATE & UART_TX_FULL) {
        }
        UART_DATA = i & 0xF ? i : 0;
    }
    RESET_CONTROL = RESET_NOW;
}

static void start_hardware(void) {
    UART_DIVIDER = CPU_MHZ * 1000000 / BAUD;
    UART_CONTROL = UART_ENABLE | UART_INTERRUPTS;
    TIMER_LOAD = UINT32_MAX;
    TIMER_CONTROL = TIMER_ENABLE | TIMER_32_BIT;
    TICK_RELOAD = CPU_MHZ * TICK_US - 1;
    TICK_VALUE = 0;
    TICK_CONTROL = 7;
}

int main(void) {
    static edge_link_config config = {
        .schema = EDGE_LINK_SCHEMA,
        .n_schema_bytes = sizeof EDGE_LINK_SCHEMA - 1,
        .n_sample_bytes = EDGE_LINK_N_SAMPLE_BYTES,
        .min_period_us = 50,
        .tx = tx,
        .n_tx_bytes = sizeof tx,
        .rx = rx,
        .n_rx_bytes = sizeof rx,
        .batch = batch,
        .n_batch_bytes = sizeof batch,
        .now_us = now_us,
        .on_command = on_command,
    };
    start_hardware();
    config.reset_cause = kept.magic == KEPT_MAGIC ? BY_SOFTWARE : POWER_ON;
    if (kept.magic != KEPT_MAGIC) {
        kept.magic = KEPT_MAGIC;
        kept.n_boots = TIMER_VALUE;
    }
    config.boot_id = ++kept.n_boots;
    edge_link_init(&board, &config);
    INTERRUPT_ENABLE = RX_INTERRUPT | TX_INTERRUPT;
    for (;;) {
        uint32_t t_us;
        edge_link_poll(&board);
        while (edge_link_sample_due(&board, &t_us)) {
            edge_link_raw_value values[EDGE_LINK_N_CHANNELS];
            if (board.n_samples == crash_at) {
                crash_in_mid_frame();
            }
            read_sensor(values, board.n_samples);
            edge_link_sample(&board, t_us, values);
            transmit();
        }
        show_lights();
        transmit();
        if (edge_link_reset_is_wanted(&board)) {
            RESET_CONTROL = RESET_NOW;
        }
        __asm__ volatile("wfi"); /* to the next tick at most */
    }
}
