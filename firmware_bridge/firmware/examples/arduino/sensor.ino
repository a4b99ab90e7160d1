/* A sensor board that edge-gru can use: samples analog inputs and lights the LED while the model that
 * reads them has an active alert. Replace read_sensor and what stands behind show_alarm.
 *
 * On the computer:  edge-gru run model.egb --port /dev/ttyACM0 --baud 115200 -o - -o board
 */
#include <Arduino.h>

#include "schema.h"

static const unsigned long BAUD = 115200;
static const int LED = LED_BUILTIN;

static edge_link board_link;
static edge_link_config config;
static uint8_t tx[EDGE_LINK_RING_BYTES], rx[64];
static unsigned long identify_until_ms;

static uint32_t now_us(void *) { return micros(); }

/* New at every boot, or a host may take two boots for one: noise, where no counter outlives a reset. */
static uint32_t make_boot_id() {
    uint32_t noise = micros();
    for (int i = 0; i < 64; i++) {
        noise = noise * 1664525u + 1013904223u + (uint32_t)analogRead(A0);
    }
    return noise;
}

static void read_sensor(edge_link_raw_value *values) {
    for (int i = 0; i < EDGE_LINK_N_CHANNELS; i++) {
        values[i] = (edge_link_raw_value)analogRead(A0 + i % 6);
    }
}

static edge_link_ack_status on_command(void *, edge_link_request *request) {
    switch (request->command) {
    case EDGE_LINK_START:
    case EDGE_LINK_STOP:
        return EDGE_LINK_OK;
    case EDGE_LINK_IDENTIFY:
        identify_until_ms = millis() + 1000ul * (request->n_arguments_bytes ? request->arguments[0] : 5);
        return EDGE_LINK_OK;
    default:
        return EDGE_LINK_NOT_SUPPORTED;
    }
}

static void show_alarm() {
    bool is_lit = edge_link_alarm_is_lit(&board_link) && edge_link_host_is_alive(&board_link);
    bool is_blinking = (long)(identify_until_ms - millis()) > 0 && millis() / 100 % 2;
    digitalWrite(LED, is_lit || is_blinking ? HIGH : LOW);
}

/* Only as much as the port takes at once: a host that does not read must not stop the sampling. */
static void transmit() {
    uint8_t byte;
    while (Serial.availableForWrite() > 0 && edge_link_transmit(&board_link, &byte)) {
        Serial.write(byte);
    }
}

void setup() {
    pinMode(LED, OUTPUT);
    Serial.begin(BAUD);
    config.schema = EDGE_LINK_SCHEMA;
    config.n_schema_bytes = sizeof EDGE_LINK_SCHEMA - 1;
    config.n_sample_bytes = EDGE_LINK_N_SAMPLE_BYTES;
    config.boot_id = make_boot_id();
    config.min_period_us = 1000;
    config.max_late_us = 1000;
    config.tx = tx;
    config.n_tx_bytes = sizeof tx;
    config.rx = rx;
    config.n_rx_bytes = sizeof rx;
    config.now_us = now_us;
    config.on_command = on_command;
    edge_link_init(&board_link, &config);
}

void loop() {
    while (Serial.available() > 0) {
        edge_link_receive(&board_link, (uint8_t)Serial.read());
        edge_link_poll(&board_link);
    }
    edge_link_poll(&board_link);
    uint32_t t_us;
    if (edge_link_sample_due(&board_link, &t_us)) {
        edge_link_raw_value values[EDGE_LINK_N_CHANNELS];
        read_sensor(values);
        edge_link_sample(&board_link, t_us, values);
    }
    show_alarm();
    transmit();
}
