/*
 * RTNeural's compile-time networks of the sizes that are timed, behind a C interface.
 *
 * Weights come as PyTorch has them: the gates r, z, n one below the other, (3H, n) row by row.
 */
#include <RTNeural.h>

#include <cstddef>
#include <memory>
#include <vector>

namespace {

using Matrix = std::vector<std::vector<float>>;

/* (rows r, z, n; n columns) to what RTNeural and Keras have: (n rows; columns z, r, n). */
Matrix transposed(const float *w, int n_hidden, int n) {
    static const int torch_gate[] = {1, 0, 2};
    Matrix out(static_cast<size_t>(n), std::vector<float>(3 * static_cast<size_t>(n_hidden)));
    for (int i = 0; i < n; i++) {
        for (int k = 0; k < 3 * n_hidden; k++) {
            const int row = torch_gate[k / n_hidden] * n_hidden + k % n_hidden;
            out[i][k] = w[row * n + i];
        }
    }
    return out;
}

struct Cell {
    const float *w_ih, *w_hh, *b_ih, *b_hh;
};

class Network {
  public:
    virtual ~Network() = default;
    virtual void set_cell(int layer, const Cell &cell) = 0;
    virtual void set_head(const float *w, const float *bias) = 0; /* (H, n_out), (n_out,) */
    virtual void run(const float *x, size_t n_steps, float *y) = 0;
};

template <int n_in, int n_hidden, int n_out> class OneLayer : public Network {
  public:
    OneLayer() { model.reset(); }
    void set_cell(int, const Cell &cell) override { set(model.template get<0>(), cell, n_in); }
    void set_head(const float *w, const float *bias) override {
        set_dense(model.template get<1>(), w, bias);
    }
    void run(const float *x, size_t n_steps, float *y) override {
        run_model(model, x, n_steps, y);
    }

  protected:
    template <class Layer> static void set(Layer &layer, const Cell &cell, int n) {
        layer.setWVals(transposed(cell.w_ih, n_hidden, n));
        layer.setUVals(transposed(cell.w_hh, n_hidden, n_hidden));
        const Matrix b_ih = transposed(cell.b_ih, n_hidden, 1);
        layer.setBVals({b_ih[0], transposed(cell.b_hh, n_hidden, 1)[0]});
    }
    template <class Dense>
    static void set_dense(Dense &dense, const float *w, const float *bias) {
        Matrix rows(n_out, std::vector<float>(n_hidden));
        for (int i = 0; i < n_hidden * n_out; i++) {
            rows[i % n_out][i / n_out] = w[i];
        }
        dense.setWeights(rows);
        dense.setBias(bias);
    }
    template <class Model>
    static void run_model(Model &model, const float *x, size_t n_steps, float *y) {
        alignas(RTNEURAL_DEFAULT_ALIGNMENT) float sample[n_in];
        for (size_t t = 0; t < n_steps; t++) {
            for (int i = 0; i < n_in; i++) {
                sample[i] = x[t * n_in + i];
            }
            model.forward(sample);
            for (int i = 0; i < n_out; i++) {
                y[t * n_out + i] = model.getOutputs()[i];
            }
        }
    }

  private:
    RTNeural::ModelT<float, n_in, n_out, RTNeural::GRULayerT<float, n_in, n_hidden>,
                     RTNeural::DenseT<float, n_hidden, n_out>>
        model;
};

template <int n_in, int n_hidden, int n_out> class TwoLayers : public OneLayer<n_in, n_hidden, n_out> {
    using Base = OneLayer<n_in, n_hidden, n_out>;

  public:
    TwoLayers() { model.reset(); }
    void set_cell(int layer, const Cell &cell) override {
        if (layer == 0) {
            Base::set(model.template get<0>(), cell, n_in);
        } else {
            Base::set(model.template get<1>(), cell, n_hidden);
        }
    }
    void set_head(const float *w, const float *bias) override {
        Base::set_dense(model.template get<2>(), w, bias);
    }
    void run(const float *x, size_t n_steps, float *y) override {
        Base::run_model(model, x, n_steps, y);
    }

  private:
    RTNeural::ModelT<float, n_in, n_out, RTNeural::GRULayerT<float, n_in, n_hidden>,
                     RTNeural::GRULayerT<float, n_hidden, n_hidden>,
                     RTNeural::DenseT<float, n_hidden, n_out>>
        model;
};

} // namespace

extern "C" {

/* NULL for a size that is not here. */
Network *open_network(int n_in, int n_hidden, int n_layers) {
    static const struct {
        int n_in, n_hidden, n_layers;
        Network *(*open)();
    } sizes[] = {
        {6, 32, 1, [] () -> Network * { return new OneLayer<6, 32, 8>; }},
        {16, 64, 1, [] () -> Network * { return new OneLayer<16, 64, 8>; }},
        {64, 128, 1, [] () -> Network * { return new OneLayer<64, 128, 8>; }},
        {64, 256, 2, [] () -> Network * { return new TwoLayers<64, 256, 8>; }},
        {128, 512, 1, [] () -> Network * { return new OneLayer<128, 512, 8>; }},
    };
    for (const auto &size : sizes) {
        if (size.n_in == n_in && size.n_hidden == n_hidden && size.n_layers == n_layers) {
            return size.open();
        }
    }
    return nullptr;
}

void set_cell(Network *network, int layer, const float *w_ih, const float *w_hh,
              const float *b_ih, const float *b_hh) {
    network->set_cell(layer, {w_ih, w_hh, b_ih, b_hh});
}

void set_head(Network *network, const float *w, const float *bias) { network->set_head(w, bias); }

void run_network(Network *network, const float *x, size_t n_steps, float *y) {
    network->run(x, n_steps, y);
}

void close_network(Network *network) { delete network; }
}
