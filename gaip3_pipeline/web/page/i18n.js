// Texts of the studio and of the tab bar, in English and in Korean; those of the other tabs are in texts.js. The language is the one chosen
// last, else the browser's.

import { PAGES } from "./texts.js";

const TEXTS = {
  en: {
    label: "Label", refresh: "Refresh", studio: "Studio", other: "한국어",
    empty: "There is no generator yet. Train one with this command, then check again:", again: "Check again",
    filmstrips: "How the generator learned", progress_nvae_weights: "Four faces by the epochs of the generator's training", progress_detail_weights: "Four faces by the epochs of the training of detail",
    detail_waits: "The generator was trained again, and its detail network is not ready yet: faces are soft until a refresh has made it.",
    drawing: "drawing …",
    waking: "Loading the generator. This takes up to 20 seconds, the first time only …",
    eyes: "eyes", mouth: "mouth", hair_color: "hair colour", background: "background", head: "head",
    detail: "detail", temperature: "temperature", guidance: "guidance", fidelity: "retouching",
    eyes_ends: "closed … open", mouth_ends: "closed … open", hair_color_ends: "light … dark",
    background_ends: "dark … bright", head_ends: "turned left … right",
    detail_ends: "none … full", range_why: "trained on {low} to {high}; others are drawn as the nearest",
    temperature_ends: "similar … varied", guidance_ends: "0 … 4; 1 = no amplification", fidelity_ends: "0 none … 1 strongest",
    own: "Reset {what} to each face's own value", seed: "seed", dice: "new random seed (r)", count: "faces",
    sliders: "sliders", views: "views", many: "Faces", neighbours: "Neighbours", sweep: "Sweeps", mix: "Mix", retouch: "Before / after",
    models: "Two models", photograph: "Photograph",
    face: "the selected face", keep: "Keep", keep_title: "keep this face in the list below (k)", download: "PNG", download_title: "download a PNG that contains the settings of this face (d)",
    shelf: "Kept faces", shelf_empty: "Faces that you keep (k) appear here.", drop_face: "remove",
    sheet: "All as PNG", zip: "Zip of", zip_title: "download this many faces and their samples.csv, in the format of the pipeline's samples", face_of: "face: {name}", face_at: "face {n}: {name}",
    many_help: "Click a face to select it. The sliders change every face; everything else about a face stays as it is.",
    neighbours_help: "The selected face among eight faces that resemble it. Click one to select it. A greater distance gives less similar faces.", distance: "distance", back: "‹ back",
    sweep_help: "The selected face. Each row changes one value from 0 to 1 and keeps everything else fixed. Click a picture to set its value.",
    mix_help: "A is the selected face. Choose B, then set the share of B at each level. Coarse levels determine who it is, fine levels the small features.",
    with: "B", values: "the five values", level: "level {i} of {n}", coarsest: "coarsest level", finest: "finest level", crossover: "coarse levels from A, fine levels from B", between: "all levels from A to B", take: "Use this face",
    retouch_help: "Retouching changes the face until the critic rates it as more realistic. The five values change as little as possible. Move the slider to compare the two pictures.", wipe: "before … after",
    before: "before", after: "after", retouching: "retouching …", kept_as_is: "Not changed: {why}.",
    set_fidelity: "Move the slider “retouching” above 0.", no_critic: "There is no critic yet. Train it with this command:",
    models_help: "The same seeds and values, drawn by both registered generators.", champion: "champion", candidate: "candidate",
    none_registered: "The MLflow model registry contains no generator yet. Each training registers one.",
    same: "Champion and candidate are the same version ({number}), beside the version before.", alone: "Version {number} is the only one. There is nothing to compare until the next training.", earlier: "the version before",
    only: "Only the {alias} exists. The other one appears after a training whose check passes.", version: "version {number}", figure: "figure",
    figure_bits_per_dim: "bits per number of a picture that was held out; lower is better", figure_n_train: "training pictures", figure_epochs: "epochs",
    figure_leakage: "the most that a slider moves another value; 0 is best", figure_r2: "{what}: how exactly the face follows the slider (R²); 1 is best",
    figure_spearman: "{what}: whether the face follows the slider in order (Spearman); 1 is best",
    photograph_help: "Drop a photograph here, or choose one. It should be upright with the face in the middle, like the training photographs; the part that is used can be moved. It is sent only to the machine that serves this page. A PNG of the studio or of gaip3 generate opens with its settings.",
    choose: "Choose a photograph", cut: "the part that is used", seen: "reconstructed by the model", edited: "your photograph, edited with the sliders",
    no_inputs: "The models that predict the five values of a photograph are not trained yet. Train them with this command:", reading: "reading the photograph …",
    too_large: "{name} is {mb} MB; the limit is {most} MB.", not_usable: "This picture cannot be used: {why}",
    empty_file: "{name} is empty: it has 0 bytes.", no_picture: "{name} is not a picture that can be read. Choose a JPEG or PNG, or save it as one.",
    gone: "The server of this page does not answer. Trying again; everything continues when it is back.",
    whole: "your photograph", part: "the part that is used: drag it, or move it with the arrow keys", part_size: "size of the part",
    part_help: "The frame is the part that is used. Move it so that the face fills it as in the pictures of the tab Faces.",
    far: "This photograph is unlike the training pictures: it is farther from them than {share} % of {n} pictures that were held out. The model may show another face. Try another part of the photograph.",
    far_all: "This photograph is unlike the training pictures: it is farther from them than each of {n} pictures that were held out. The model may show another face. Try another part of the photograph.",
    help: "Help", help_title: "keys and words (?)", key_list: "Keys", word_list: "Words", close_help: "Close", arrows: "move between pictures; select the face",
    seed_help: "the number that a face is drawn from; the same seed gives the same face", detail_help: "fine texture; 0 gives the generator's soft picture",
    temperature_help: "how much the faces differ; 1 as in training, lower values give more typical faces",
    guidance_help: "how strongly the five values act; 1 is as in training", fidelity_help: "how far a face may change to look more realistic; 0 is off",
    range: "hatched track", range_help: "too few training pictures have such values; they are drawn as the nearest value that was learned",
    link: "Copy link", link_title: "copy a link to this page as it is now (l)", command: "Copy command", command_title: "copy the command that draws this face (c)",
    link_copied: "Link copied. It opens this page as it is now, on machines that reach this server.",
    link_without_photograph: "Link copied, without the face: a photograph is not put into links. Download its PNG, and drop it here to open it.",
    command_copied: "Command copied. It draws this face into {file}.", command_of_png: "Command copied. It draws this face again from its PNG: download {file} first.",
    list_command_copied: "Command copied. It draws these faces into {file}.", copy_this: "Copy this text:",
    other_model: "This link was made with generator {theirs}. This one is {ours}: its faces differ.",
    first_of: "This picture has {of} faces; these are the first {n}.",
    seed_face: "seed {seed}", photograph_face: "photograph", mixed: "{first} mixed with {second}", mixed_more: "{first} mixed with {second} and {more} more", retouched_face: "{said}, retouched {fidelity}",
    trained_on: "This generator was trained on {pictures} pictures from the folders {folders}.", trained_size: "It draws faces of {height} × {width} pixels (height × width).",
    trained_epochs: "Training took {epochs} epochs.", trained_epochs_in: "Training took {epochs} epochs; its last run took {time}.",
    trained_limit: "It knows only faces like these.",
    kept: "Face kept.", failed: "The request failed: {why}",
  },
  ko: {
    label: "레이블", refresh: "갱신", studio: "스튜디오", other: "English",
    empty: "아직 생성기가 없습니다. 아래 명령으로 학습한 뒤 다시 확인하세요.", again: "다시 확인",
    filmstrips: "생성기의 학습 과정", progress_nvae_weights: "생성기 학습의 에포크에 따른 네 얼굴", progress_detail_weights: "디테일 학습의 에포크에 따른 네 얼굴",
    detail_waits: "생성기를 다시 학습했지만 디테일 신경망이 아직 준비되지 않았습니다. 갱신이 끝날 때까지 얼굴이 부드럽게 보입니다.",
    drawing: "그리는 중 …",
    waking: "생성기를 불러오는 중입니다. 처음 한 번만 최대 20초가 걸립니다 …",
    eyes: "눈", mouth: "입", hair_color: "머리 색", background: "배경", head: "고개",
    detail: "디테일", temperature: "온도", guidance: "가이던스", fidelity: "보정",
    eyes_ends: "감음 … 뜸", mouth_ends: "다묾 … 벌림", hair_color_ends: "밝음 … 어두움",
    background_ends: "어두움 … 밝음", head_ends: "왼쪽 … 오른쪽",
    detail_ends: "없음 … 최대", range_why: "학습 범위 {low}–{high}, 벗어난 값은 가장 가까운 값으로 그립니다",
    temperature_ends: "비슷함 … 다양함", guidance_ends: "0 … 4, 1 = 증폭 없음", fidelity_ends: "0 없음 … 1 최대",
    own: "{what} 값을 얼굴별 원래 값으로 초기화", seed: "시드", dice: "새 무작위 시드 (r)", count: "얼굴 수",
    sliders: "슬라이더", views: "보기", many: "여러 얼굴", neighbours: "이웃", sweep: "값 변화", mix: "섞기", retouch: "보정 전후",
    models: "두 모델", photograph: "사진",
    face: "선택한 얼굴", keep: "보관", keep_title: "이 얼굴을 아래 보관함에 추가 (k)", download: "PNG", download_title: "이 얼굴의 설정이 담긴 PNG 내려받기 (d)",
    shelf: "보관함", shelf_empty: "보관한 얼굴(k)이 여기에 표시됩니다.", drop_face: "제거",
    sheet: "전체 PNG", zip: "Zip", zip_title: "입력한 수만큼의 얼굴과 samples.csv를 파이프라인의 samples와 같은 형식으로 내려받기", face_of: "얼굴: {name}", face_at: "얼굴 {n}: {name}",
    many_help: "얼굴을 클릭하면 선택됩니다. 슬라이더는 모든 얼굴에 적용되고 얼굴의 나머지는 그대로 유지됩니다.",
    neighbours_help: "선택한 얼굴과 그와 닮은 여덟 얼굴입니다. 클릭하면 그 얼굴이 선택됩니다. 거리가 클수록 덜 닮습니다.", distance: "거리", back: "‹ 뒤로",
    sweep_help: "선택한 얼굴에서 행마다 한 가지 값만 0에서 1까지 바꾸고 나머지는 고정합니다. 그림을 클릭하면 그 값이 적용됩니다.",
    mix_help: "A는 선택한 얼굴입니다. B를 고른 뒤 단계마다 B의 비율을 정하세요. 거친 단계는 인물을, 세밀한 단계는 작은 특징을 결정합니다.",
    with: "B", values: "다섯 값", level: "{n}단계 중 {i}단계", coarsest: "가장 거친 단계", finest: "가장 세밀한 단계", crossover: "거친 단계는 A, 세밀한 단계는 B", between: "모든 단계를 A에서 B로", take: "이 얼굴 사용",
    retouch_help: "보정은 비평가 모델이 더 실제 같다고 평가할 때까지 얼굴을 바꿉니다. 다섯 값은 되도록 유지됩니다. 슬라이더를 움직여 두 그림을 비교해 보세요.", wipe: "전 … 후",
    before: "보정 전", after: "보정 후", retouching: "보정하는 중 …", kept_as_is: "바뀌지 않았습니다: {why}.",
    set_fidelity: "“보정” 슬라이더를 0보다 크게 설정하세요.", no_critic: "아직 비평가 모델이 없습니다. 아래 명령으로 학습하세요.",
    models_help: "등록된 두 생성기가 같은 시드와 같은 다섯 값으로 그린 그림입니다.", champion: "챔피언", candidate: "후보",
    none_registered: "MLflow 모델 레지스트리에 아직 생성기가 없습니다. 학습할 때마다 하나씩 등록됩니다.",
    same: "챔피언과 후보가 같은 버전({number})입니다. 이전 버전과 나란히 보입니다.", alone: "버전이 {number} 하나뿐입니다. 다음 학습이 끝나기 전에는 비교할 것이 없습니다.", earlier: "이전 버전",
    only: "{alias}만 있습니다. 다른 하나는 검사를 통과한 학습이 있으면 생깁니다.", version: "버전 {number}", figure: "지표",
    figure_bits_per_dim: "학습에 쓰지 않은 사진의 수치당 비트 수. 낮을수록 좋음", figure_n_train: "학습 사진 수", figure_epochs: "에포크",
    figure_leakage: "슬라이더가 다른 값을 가장 크게 움직이는 정도. 0이 가장 좋음", figure_r2: "{what}: 얼굴이 슬라이더를 정확히 따르는 정도(R²). 1이 가장 좋음",
    figure_spearman: "{what}: 얼굴이 슬라이더의 순서를 따르는 정도(스피어먼). 1이 가장 좋음",
    photograph_help: "사진을 여기에 끌어다 놓거나 선택하세요. 학습 사진처럼 기울지 않고 얼굴이 가운데에 있는 사진이 좋으며, 사용할 부분은 옮길 수 있습니다. 사진은 이 페이지를 제공하는 컴퓨터로만 전송됩니다. 스튜디오나 gaip3 generate의 PNG는 담긴 설정 그대로 열립니다.",
    choose: "사진 선택", cut: "사용한 부분", seen: "모델이 재구성한 사진", edited: "슬라이더로 편집한 내 사진",
    no_inputs: "사진에서 다섯 값을 예측하는 모델이 아직 없습니다. 아래 명령으로 학습하세요.", reading: "사진을 읽는 중 …",
    too_large: "{name}의 크기는 {mb} MB입니다. 최대 {most} MB까지 올릴 수 있습니다.", not_usable: "사용할 수 없는 그림입니다: {why}",
    empty_file: "{name} 파일이 비어 있습니다(0바이트).", no_picture: "{name} 파일은 읽을 수 있는 사진이 아닙니다. JPEG나 PNG 파일을 선택하거나 그 형식으로 저장하세요.",
    gone: "이 페이지의 서버가 응답하지 않습니다. 다시 연결하는 중이며, 연결되면 그대로 이어집니다.",
    whole: "내 사진", part: "사용할 부분: 끌거나 화살표 키로 옮기세요", part_size: "부분의 크기",
    part_help: "테두리 안이 사용되는 부분입니다. 여러 얼굴 탭의 그림처럼 얼굴이 가득 차도록 옮기세요.",
    far: "이 사진은 학습 사진과 다릅니다. 학습에 쓰지 않은 사진 {n}장의 {share} %보다 학습 사진에서 더 멉니다. 모델이 다른 얼굴을 보여 줄 수 있으니 사진의 다른 부분을 써 보세요.",
    far_all: "이 사진은 학습 사진과 다릅니다. 학습에 쓰지 않은 사진 {n}장 모두보다 학습 사진에서 더 멉니다. 모델이 다른 얼굴을 보여 줄 수 있으니 사진의 다른 부분을 써 보세요.",
    help: "도움말", help_title: "단축키와 용어 (?)", key_list: "단축키", word_list: "용어", close_help: "닫기", arrows: "그림 사이 이동, 얼굴 선택",
    seed_help: "얼굴을 그리는 출발점이 되는 수. 시드가 같으면 얼굴도 같습니다", detail_help: "세밀한 질감. 0이면 생성기의 부드러운 그림입니다",
    temperature_help: "얼굴이 서로 다른 정도. 1은 학습 때와 같고, 낮을수록 전형적인 얼굴입니다",
    guidance_help: "다섯 값이 작용하는 세기. 1은 학습 때와 같습니다", fidelity_help: "더 실제처럼 보이도록 얼굴이 바뀔 수 있는 정도. 0이면 보정하지 않습니다",
    range: "빗금 친 구간", range_help: "이런 값을 가진 학습 사진이 너무 적어, 학습한 가장 가까운 값으로 그립니다",
    link: "링크 복사", link_title: "지금 상태의 이 페이지로 가는 링크 복사 (l)", command: "명령 복사", command_title: "이 얼굴을 그리는 명령 복사 (c)",
    link_copied: "링크를 복사했습니다. 이 서버에 연결되는 컴퓨터에서 지금 상태 그대로 열립니다.",
    link_without_photograph: "얼굴을 뺀 링크를 복사했습니다. 사진은 링크에 담지 않습니다. PNG를 내려받아 여기에 끌어다 놓으면 다시 열립니다.",
    command_copied: "명령을 복사했습니다. 이 얼굴을 {file} 파일로 그립니다.", command_of_png: "명령을 복사했습니다. PNG로 이 얼굴을 다시 그리므로 먼저 {file} 파일을 내려받으세요.",
    list_command_copied: "명령을 복사했습니다. 이 얼굴들을 {file} 파일로 그립니다.", copy_this: "이 글을 복사하세요:",
    other_model: "이 링크는 생성기 {theirs}의 것입니다. 지금 생성기는 {ours}이므로 얼굴이 다릅니다.",
    first_of: "이 그림에는 얼굴이 {of}개 있으며, 처음 {n}개만 열었습니다.",
    seed_face: "시드 {seed}", photograph_face: "사진", mixed: "{first} + {second} 혼합", mixed_more: "{first} + {second} 외 {more}개 혼합", retouched_face: "{said}, 보정 {fidelity}",
    trained_on: "이 생성기는 폴더 {folders}의 사진 {pictures}장으로 학습했습니다.", trained_size: "{height} × {width} 픽셀(높이 × 너비)의 얼굴을 그립니다.",
    trained_epochs: "{epochs}에포크 동안 학습했습니다.", trained_epochs_in: "{epochs}에포크 동안 학습했고, 마지막 실행에는 {time}이 걸렸습니다.",
    trained_limit: "이와 같은 얼굴만 압니다.",
    kept: "보관했습니다.", failed: "요청이 실패했습니다: {why}",
  },
};

for (const [name, texts] of Object.entries(PAGES)) Object.assign(TEXTS[name], texts);

export let language = localStorage.language || (navigator.language.startsWith("ko") ? "ko" : "en");

export const t = (key, values = {}) => TEXTS[language][key].replace(/\{(\w+)\}/g, (_, name) => values[name]);

// A duration of `s` seconds in words.
export const duration = (s) => s < 1 ? t("under_1_s") : s < 90 ? t("seconds", { n: Math.round(s) }) : s < 5400 ? t("minutes", { n: Math.round(s / 60) }) : t("hours", { n: (s / 3600).toFixed(1) });

// The name of an attribute, or any other name as it is.
export const called = (name) => TEXTS[language][name] ?? name;

// Fill in the texts of every element below `root`: data-t names the key of its text, data-t-label that of its accessible name and tooltip, data-t-title that of its tooltip.
export function translate(root = document) {
  for (const e of root.querySelectorAll("[data-t]")) e.textContent = t(e.dataset.t);
  for (const e of root.querySelectorAll("[data-t-label]")) {
    e.title = t(e.dataset.tLabel);
    e.setAttribute("aria-label", e.title);
  }
  for (const e of root.querySelectorAll("[data-t-title]")) e.title = t(e.dataset.tTitle);
  document.documentElement.lang = language;
}

export function switchLanguage() {
  language = localStorage.language = language === "ko" ? "en" : "ko";
  translate();
  dispatchEvent(new Event("language"));
}
